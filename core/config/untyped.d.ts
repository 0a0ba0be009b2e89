/** The part of js-yaml 4 that is used here; it comes without types. */
declare module "js-yaml" {
  /** What the parser is at: told to the listener before and after each node. */
  export interface ParserState {
    /** From 0. */
    readonly line: number;
    /** The value of the node that was just closed. */
    readonly result: unknown;
  }
  export function load(
    text: string,
    options: {
      schema: unknown;
      maxDepth: number;
      listener: (event: "open" | "close", state: ParserState) => void;
    },
  ): unknown;
  /** The types of JSON, with the YAML 1.2 ways of writing numbers: no dates, no binary, no merge keys. */
  export const CORE_SCHEMA: unknown;
  export class YAMLException extends Error {
    readonly reason: string;
    /** From 0. */
    readonly mark?: { readonly line: number; readonly column: number };
  }
}

/** cosmiconfig's explorer, without the reading of a config for cosmiconfig itself. */
declare module "cosmiconfig/dist/Explorer.js" {
  import type { CosmiconfigResult, Options } from "cosmiconfig";
  export class Explorer {
    constructor(options: Options & { moduleName: string });
    load(file: string): Promise<CosmiconfigResult>;
  }
}
