import { defineSlot } from "./slot.js";
import type { StandardSchema } from "./standard-schema.js";
import type { Template } from "./template.js";

/** A template document as a source found it: not validated, its durations still strings. */
export interface TemplateDocument {
  template_id: string;
  /** Changes when the document does; shown, and pinned by every agent started from it. */
  revision: string;
  /** The document as written (snake_case, as in a template file). */
  document: unknown;
  /** Where it came from, for messages: a file, an address. */
  origin: string;
  /** The folder that relative `command`, `cwd` and `env_file` start from; absent: absolute only. */
  baseDir?: string;
}

/** A validated template at one revision. What an agent's record keeps. */
export interface PinnedTemplate {
  template: Template;
  /** The sections that the document has; the template's others are defaults. Absent in records of version 0.1. */
  sections?: string[];
  revision: string;
  origin: string;
  baseDir?: string;
}

/** A document that a source holds and that is not a valid template. */
export interface InvalidTemplate {
  origin: string;
  template_id?: string;
  error: string;
}

/** All templates that agents can be started from, of all sources. */
export interface TemplateLookup {
  /** Looks an id up in the sources, in order, and validates it. Rejects with `template_not_found`, or `template_invalid`. */
  find(templateId: string): Promise<PinnedTemplate>;
  /** Every id once, of the first source that has it, and all documents that are not valid. */
  list(): Promise<{ items: PinnedTemplate[]; invalid: InvalidTemplate[] }>;
  /** Checks a document of any source, from `start` on. Throws `template_invalid`, which names origin and field. */
  parse(document: TemplateDocument): PinnedTemplate;
  /** What a template can say, with the sections of all plugins. */
  readonly schema: StandardSchema<unknown, Template>;
}

/**
 * One part of the Agent Design Layer. Sources form a chain; the first that knows an id wins.
 */
export interface TemplateSource {
  readonly name: string;
  get(templateId: string): Promise<TemplateDocument | undefined>;
  list(): Promise<{ documents: TemplateDocument[]; invalid: InvalidTemplate[] }>;
  /** Reads again what is only read at the start: templates that are code. */
  reload?(): Promise<void>;
  /** Absent: this source is read-only. */
  put?(templateId: string, document: unknown): Promise<TemplateDocument>;
  /** Resolves false when this source does not hold it. */
  delete?(templateId: string): Promise<boolean>;
}

export const templateSource = defineSlot<TemplateSource, "chain">("templateSource", "chain");
