import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** A page of the documentation: its path from the root, and its text. */
export interface Page {
  path: string;
  text: string;
}

export function readPage(path: string): Page {
  return { path, text: readFileSync(join(ROOT, path), "utf8") };
}

/** The pages of the root that describe the project as it is. */
const ROOT_PAGES = ["README.md", "AGENTS.md", "CONTRIBUTING.md", "SECURITY.md", "UPGRADING.md"];

/** Those, every page below `docs/`, and the README files of plugins and examples. */
export function allPages(): Page[] {
  const folders = ["docs", "plugins", "examples"];
  const found = folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".md") && !name.includes("node_modules"))
      .map((name) => join(folder, name)),
  );
  return [...ROOT_PAGES, ...found.sort()].filter((path) => existsSync(join(ROOT, path))).map(readPage);
}

/** The text below a heading, up to the next one of the same or a higher level. */
export function section({ path, text }: Page, heading: string): string {
  const lines = withoutFences(text).split("\n");
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, "") === heading);
  if (start < 0) throw new Error(`${path} has no heading "${heading}"`);
  const level = lines[start]?.indexOf(" ") ?? 0;
  const end = lines.findIndex(
    (line, index) => index > start && (/^(#+) /.exec(line)?.[1]?.length ?? 9) <= level,
  );
  // From the text as it is: fences were only blanked out.
  return text
    .split("\n")
    .slice(start + 1, end < 0 ? undefined : end)
    .join("\n");
}

/** A fence as empty lines, so that what stands in it is no heading, link or table. */
export function withoutFences(text: string): string {
  return text.replace(/^```[\s\S]*?^```$/gm, (fence) => fence.replace(/[^\n]/g, ""));
}

/** The rows of the tables in a text, by the words of their headers; where one is empty, by its number from 0. */
export function rows(text: string): Record<string, string>[] {
  const found: Record<string, string>[] = [];
  let header: string[] | undefined;
  for (const line of withoutFences(text).split("\n")) {
    if (!line.startsWith("|")) {
      header = undefined;
      continue;
    }
    const cells = line.split(/(?<!\\)\|/).slice(1, -1);
    const words = cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
    if (!header) header = words;
    else if (!words.every((word) => /^:?-+:?$/.test(word))) {
      const names = header;
      found.push(Object.fromEntries(words.map((word, index) => [names[index] || String(index), word])));
    }
  }
  return found;
}

/** What stands in backticks, fences apart. */
export function code(text = ""): string[] {
  return [...withoutFences(text).matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");
}

/** The fences of a language, with the marker `<!-- run: NAME -->` above them where there is one. */
export function fences(text: string, language: string): { name?: string; content: string }[] {
  const pattern = new RegExp(
    `(?:<!-- (?:run|file): (\\S+) -->\\n)?^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`,
    "gm",
  );
  return [...text.matchAll(pattern)].map(([, name, content = ""]) => ({
    ...(name ? { name } : {}),
    content,
  }));
}

/** What stands between `<!-- name -->` and `<!-- /name -->`. */
export function marked({ path, text }: Page, name: string): string {
  const found = new RegExp(`<!-- ${name} -->([\\s\\S]*?)<!-- /${name} -->`).exec(text)?.[1];
  if (found === undefined) throw new Error(`${path} has no part marked ${name}`);
  return found;
}

/** The anchors of a page's headings, as forges make them. */
export function anchors(text: string): string[] {
  return [...withoutFences(text).matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}
