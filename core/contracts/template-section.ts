import { defineSlot } from "./slot.js";
import type { StandardSchema } from "./standard-schema.js";
import type { Template } from "./template.js";
import type { PinnedTemplate } from "./template-source.js";

/** What the placeholders of a template stand for. */
export interface TemplateValues {
  readonly agentId: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/**
 * A key of templates that a plugin owns: it says how the key is written, and acts on it. A template that has a
 * section which no plugin provides is refused.
 *
 * Types join by declaration merging: `TemplateSections` for what the plugin reads, `TemplateSectionInputs` for
 * what people write.
 */
export interface TemplateSection<Value = unknown> {
  /** The key, as in a template file: lower case, `_` between words. */
  readonly name: string;
  /** One sentence; shown in the JSON Schema of templates. */
  readonly description: string;
  /** Checks what people write. Its output is what `Template` holds, and what the record of an agent keeps as JSON. */
  readonly schema: StandardSchema<unknown, Value>;
  /** Written in the place of the section where a template leaves it out. Absent: then the template has none. */
  readonly default?: unknown;
  /** Its texts may hold placeholders. The plugin fills them in, with `fillPlaceholders`. */
  readonly placeholders?: boolean;
  /** Says what is wrong with the section beside others; `undefined`: nothing. `template` has all sections. */
  check?(value: Value, template: Template): string | undefined;
  /** Answers what the template holds in the end, where that depends on other sections. Called for every template. */
  complete?(value: Value | undefined, template: Template): Value | undefined;
  /**
   * Throws `template_invalid` where no agent can be started by this section here. Asked before an agent is made,
   * before each start, and without `values` when a config is checked.
   */
  checkStart?(value: Value, template: PinnedTemplate, values: TemplateValues | undefined): void;
}

export const templateSection = defineSlot<TemplateSection, "many">("templateSection", "many");
