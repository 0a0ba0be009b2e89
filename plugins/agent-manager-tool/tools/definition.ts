/** The part of JSON Schema that the tools' arguments are described with. */
export type ArgumentSchema = {
  readonly description: string;
} & (
  | { readonly type: "string"; readonly pattern?: string; readonly enum?: readonly string[] }
  | { readonly type: "integer"; readonly minimum: number; readonly maximum: number }
  | { readonly type: "boolean" }
  | { readonly type: "object"; readonly additionalProperties: true | { readonly type: "string" } }
  | {
      readonly type: "array";
      readonly items: { readonly type: "string" };
      readonly minItems: number;
      readonly maxItems: number;
    }
);

export interface ToolDefinition {
  /** As people and OpenStarry write it. Where colons are not allowed: `agent_start`. */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /** `read` changes nothing, `write` may, `destructive` ends work in progress. */
  readonly effect: "read" | "write" | "destructive";
  /** False: the same call again does something again. */
  readonly idempotent: boolean;
  /** The operation whose tool it is. */
  readonly operation: string;
  readonly parameters: {
    readonly type: "object";
    readonly properties: Readonly<Record<string, ArgumentSchema>>;
    readonly required: readonly string[];
    readonly additionalProperties: false;
  };
}

/** Writes a name for where it may hold letters, digits and `_` only. */
export function plainName(name: string): string {
  return name.replace(":", "_");
}
