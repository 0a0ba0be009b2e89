import { describe, expect, it } from "vitest";
import { isOpenStarryError, OpenStarryError } from "../../../../core/contracts/errors.js";
import type {
  InvalidTemplate,
  TemplateDocument,
  TemplateSource,
} from "../../../../core/contracts/template-source.js";
import { createTemplateLanguage } from "../../../../core/template/language.js";
import { createTemplates } from "../../../../core/template/templates.js";

function documentOf(
  templateId: string,
  origin: string,
  more: Record<string, unknown> = {},
): TemplateDocument {
  const document = { template_id: templateId, command: "run", description: origin, ...more };
  return { template_id: templateId, revision: "r1", origin, baseDir: "/t", document };
}

interface Parts {
  reloads?: string[];
  invalid?: InvalidTemplate[];
  /** Thrown by whatever is asked. */
  down?: unknown;
}

/** A source of these documents, each by its id. */
function sourceOf(name: string, documents: readonly TemplateDocument[], parts: Parts = {}): TemplateSource {
  const ask = async () => {
    if (parts.down !== undefined) throw parts.down;
  };
  return {
    name,
    async get(templateId) {
      await ask();
      const broken = parts.invalid?.find((it) => it.template_id === templateId);
      if (broken) throw new OpenStarryError("template_invalid", { detail: broken.error });
      return documents.find((it) => it.template_id === templateId);
    },
    async list() {
      await ask();
      return { documents: [...documents], invalid: parts.invalid ?? [] };
    },
    async reload() {
      parts.reloads?.push(name);
    },
  };
}

const first = sourceOf("first", [documentOf("A", "first/A"), documentOf("B", "first/B")]);
const second = sourceOf("second", [documentOf("B", "second/B"), documentOf("C", "second/C")]);
const down = sourceOf("remote", [], { down: new Error("connect ECONNREFUSED https://me:secret@host/x") });

const language = createTemplateLanguage([]);
const of = (...sources: TemplateSource[]) =>
  createTemplates({ sources: () => sources, language: () => language });

async function failure(work: Promise<unknown>): Promise<OpenStarryError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!isOpenStarryError(error)) throw error;
  return error;
}

describe("find", () => {
  it.each([
    ["A", "first/A"],
    ["B", "first/B"],
    ["C", "second/C"],
  ])("takes %s from the first source that knows it", async (templateId, origin) => {
    expect(await of(first, second).find(templateId)).toMatchObject({
      origin,
      revision: "r1",
      template: { description: origin },
    });
  });

  it("goes past a source that is down", async () => {
    expect((await of(down, first).find("A")).origin).toBe("first/A");
  });

  it("asks the sources that there are at that moment", async () => {
    let sources: readonly TemplateSource[] = [];
    const templates = createTemplates({ sources: () => sources, language: () => language });
    expect((await failure(templates.find("A"))).hint).toBe("there are none yet");
    sources = [first];
    expect((await templates.find("A")).origin).toBe("first/A");
  });

  it("says what there is, and what was probably meant", async () => {
    const error = await failure(
      of(sourceOf("file", [documentOf("Worker_v1", "w"), documentOf("Other", "o")])).find("Wroker_v1"),
    );
    expect(error.code).toBe("template_not_found");
    expect(error.message).toBe('there is no template "Wroker_v1"');
    expect(error.hint).toBe('did you mean "Worker_v1"? there are Worker_v1, Other');
  });

  it("mentions what is not valid", async () => {
    const broken = sourceOf("file", [documentOf("A", "a")], {
      invalid: [{ origin: "/t/x.yaml", error: "x" }],
    });
    const { hint } = await failure(of(broken).find("zzzzzzzzzz"));
    expect(hint).toBe("there are A; 1 document is not valid, as the list of templates tells");
  });

  it("names at most 20", async () => {
    const many = Array.from({ length: 25 }, (_, index) => documentOf(`Template_${index}`, "x"));
    const { hint } = await failure(of(sourceOf("file", many)).find("zzzzzzzzzzzz"));
    expect(hint).toMatch(/^there are Template_0, .*, Template_19 and 5 more$/);
  });

  it("says when a source could not be asked, without its password", async () => {
    const error = await failure(of(first, down).find("Z"));
    expect(error.message).toBe(
      'there is no template "Z"; these sources could not be asked: remote (connect ECONNREFUSED https://***@host/x)',
    );
  });

  it("passes on what is wrong with the template, and does not look further", async () => {
    const broken = sourceOf("file", [], {
      invalid: [{ origin: "/t/C.yaml", template_id: "C", error: "C.yaml: no" }],
    });
    const error = await failure(of(broken, second).find("C"));
    expect([error.code, error.message]).toEqual(["template_invalid", "C.yaml: no"]);
    const unchecked = await failure(
      of(sourceOf("x", [documentOf("D", "x/D", { command: 3 })]), second).find("D"),
    );
    expect(unchecked.code).toBe("template_invalid");
    expect(unchecked.message).toContain("template D (x/D): command: expected string");
  });
});

describe("list", () => {
  it("has every id once, of the first source that knows it", async () => {
    const { items, invalid } = await of(first, second).list();
    expect(items.map(({ origin }) => origin)).toEqual(["first/A", "first/B", "second/C"]);
    expect(invalid).toEqual([]);
  });

  it("has what is not valid, and what could not be asked, beside the good ones", async () => {
    const broken = sourceOf("broken", [documentOf("D", "broken/D", { command: 3 })], {
      invalid: [{ origin: "/t/x.yaml", error: "x" }],
    });
    const { items, invalid } = await of(broken, down, first).list();
    expect(items.map(({ origin }) => origin)).toEqual(["first/A", "first/B"]);
    expect(invalid).toEqual([
      { origin: "/t/x.yaml", error: "x" },
      { origin: "broken/D", template_id: "D", error: expect.stringContaining("command: expected string") },
      { origin: "remote", error: "it could not be asked: connect ECONNREFUSED https://***@host/x" },
    ]);
  });
});

describe("reload", () => {
  it("reaches every source that can", async () => {
    const reloads: string[] = [];
    const { reload: _, ...without } = sourceOf("without", []);
    await of(sourceOf("a", [], { reloads }), without, sourceOf("b", [], { reloads })).reload();
    expect(reloads).toEqual(["a", "b"]);
  });
});
