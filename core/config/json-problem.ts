type Yaml = typeof import("yaml");

export interface JsonProblem {
  /** Its place in the text. */
  offset: number;
  problem: string;
  hint?: string;
}

/** Says what makes a text invalid as JSON; `undefined` for valid JSON. */
export function jsonProblem(yaml: Yaml, text: string): JsonProblem | undefined {
  const message = parseError(text);
  if (message === undefined) return undefined;
  const position = / at position (\d+)/.exec(message)?.[1];
  const isCutOff = message.includes("end of JSON");
  const offset = isCutOff
    ? text.length
    : position === undefined
      ? firstForeign(yaml, text)
      : Number(position);
  const char = text[offset];
  if ((char === "]" || char === "}") && text.slice(0, offset).trimEnd().endsWith(",")) {
    return { offset, problem: `trailing comma before "${char}"`, hint: "remove the comma" };
  }
  if (char === "/" || char === "#")
    return { offset, problem: "JSON has no comments", hint: "use YAML, which has them" };
  const problem = message.replace(
    / in JSON at position .*|( after JSON) at position .*|, (\.\.\.)?".*/s,
    "$1",
  );
  return { offset, problem, hint: char === "'" ? "use double quotes" : undefined };
}

function parseError(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * JSON.parse does not tell where an "unexpected token" is. It is the first lexeme that only YAML has, or that
 * only YAML allows after the one before it.
 */
function firstForeign({ Lexer, CST }: Yaml, text: string): number {
  let offset = 0;
  let [marker, before] = ["", ""];
  for (const lexeme of new Lexer().lex(text)) {
    if (lexeme === CST.DOCUMENT || lexeme === CST.FLOW_END || lexeme === CST.SCALAR) {
      marker = lexeme;
      continue;
    }
    const fits =
      marker === CST.SCALAR ? parseError(lexeme) === undefined : /^(\s*|[{}[\],:]|".*")$/s.test(lexeme);
    if (!fits || /^([,:][\]},]|\[[},:]|\{[\],:])$/.test(before + lexeme)) return offset;
    if (lexeme.trim() !== "") before = lexeme;
    marker = "";
    offset += lexeme.length;
  }
  return offset;
}
