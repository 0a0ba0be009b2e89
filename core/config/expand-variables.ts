import { pathText } from "./plain-value.js";

export type FailExpand = (path: readonly PropertyKey[], problem: string, hint: string) => never;

/** `$${`, `${NAME}`, `${NAME:-default}`; the last alternative is what looks like one and is not. */
const EXPANSION = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}|\$\{/g;

/**
 * Replaces `${NAME}` and `${NAME:-default}` in every string below `value`, keys excepted, and `$${` by a
 * plain `${`. As in a shell, the default is also used when the variable is empty. What comes out of a
 * variable is not looked at again. A value never stands in an error.
 */
export function expandVariables(
  value: unknown,
  env: Readonly<Record<string, string | undefined>>,
  fail: FailExpand,
): unknown {
  const inside = (it: unknown, path: readonly PropertyKey[]): unknown => {
    if (typeof it === "string") return it.includes("${") ? expandText(it, path) : it;
    if (Array.isArray(it)) return it.map((item, index) => inside(item, [...path, index]));
    if (typeof it !== "object" || it === null) return it;
    return Object.fromEntries(Object.entries(it).map(([key, part]) => [key, inside(part, [...path, key])]));
  };

  const expandText = (text: string, path: readonly PropertyKey[]): string =>
    text.replace(EXPANSION, (found: string, name: string | undefined, fallback: string | undefined) => {
      if (found === "$${") return "${";
      if (name === undefined) {
        return fail(
          path,
          `${pathText(path)} holds a "\${" that is neither \${NAME} nor \${NAME:-default}`,
          'write "$${" for a "${" that is meant as it stands',
        );
      }
      const set = env[name];
      if (fallback !== undefined) return set === undefined || set === "" ? fallback : set;
      if (set !== undefined) return set;
      return fail(
        path,
        `${pathText(path)} needs the variable ${name}, which is not set`,
        `set ${name}, or give a default with \${${name}:-default}`,
      );
    });

  return inside(value, []);
}
