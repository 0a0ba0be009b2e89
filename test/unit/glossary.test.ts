import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { allPages, ROOT, readPage, rows, withoutFences } from "../docs/pages.js";

const glossary = readPage("docs/glossary.md");
const entries = rows(glossary.text);
const terms = entries.flatMap((row) => String(row["term"]).split(", "));

/** Words of the dialect that the project once had, and that the pages are free of. */
const DIALECT = [
  "somebody",
  "nobody",
  "whoever",
  "anybody",
  "so many",
  "so long",
  "so much",
  "mend",
  "mends",
  "mended",
  "see to",
  "sees to",
  "seen to",
  "anew",
  "lies at",
  "lie at",
  "is told",
  "are told",
  "was told",
  "in words",
  "the very",
  "hears of",
  "asks again",
];

describe("docs/glossary.md", () => {
  it("explains each term once, in one line", () => {
    expect(terms.length).toBeGreaterThan(80);
    expect(terms.filter((term, index) => terms.indexOf(term) !== index)).toEqual([]);
    expect(entries.filter((row) => !row["means"])).toEqual([]);
  });

  it("has no term that the docs and the core do not use", () => {
    const sources = readdirSync(join(ROOT, "core"), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => readFileSync(join(ROOT, "core", name), "utf8"));
    const pages = allPages().filter(({ path }) => path !== glossary.path);
    const used = [...sources, ...pages.map(({ text }) => text)].join("\n").replace(/\s+/g, " ").toLowerCase();
    expect(terms.filter((term) => !used.includes(term.toLowerCase()))).toEqual([]);
  });
});

describe("plain words", () => {
  const pages = allPages().filter(({ path }) => /^(docs\/)?[^/]+\.md$/.test(path));

  it("covers the README and every page of docs/", () => {
    expect(pages.length).toBeGreaterThan(12);
  });

  it.each(pages.map((page) => [page.path, page] as const))("%s is free of the old dialect", (_, { text }) => {
    const prose = withoutFences(text)
      .replace(/`[^`]*`/g, "")
      .toLowerCase();
    const found = DIALECT.filter((words) => new RegExp(`\\b${words.replaceAll(" ", "\\s+")}\\b`).test(prose));
    expect(found).toEqual([]);
  });
});
