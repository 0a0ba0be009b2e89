import { createSlotRegistry } from "../../core/host/slots.js";
import { createTemplateLanguage } from "../../core/index.js";
import { sectionOrigins } from "../../plugins/builtins.js";
import { builtInSections } from "./built-in-sections.js";

/** The template language with the sections of all built-in plugins, and with no probes. */
export const templateLanguage = createTemplateLanguage(builtInSections(createSlotRegistry()), sectionOrigins);
