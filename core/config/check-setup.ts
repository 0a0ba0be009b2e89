import type { Config } from "../contracts/config.js";
import { OpenStarryError, toOpenStarryError } from "../contracts/errors.js";
import type { Logger, ResolvedPlugin } from "../contracts/plugin.js";
import { spawner } from "../contracts/spawner.js";
import { templateSection } from "../contracts/template-section.js";
import { templateSource } from "../contracts/template-source.js";
import { createEventHub } from "../host/events.js";
import { createHooks } from "../host/hooks.js";
import { orderPlugins } from "../host/plugin-graph.js";
import { createPluginHost, type SharedContext } from "../host/plugin-lifecycle.js";
import { createSlotRegistry, type SlotRegistry } from "../host/slots.js";
import { KERNEL_SLOTS, missingSlot } from "../kernel.js";
import { systemClock } from "../lib/clock.js";
import { nearest } from "../lib/nearest.js";
import { createTemplateLanguage } from "../template/language.js";
import { parseParams } from "../template/params.js";
import { createTemplates, type Templates } from "../template/templates.js";

export interface CheckSetupOptions {
  config: Config;
  plugins: readonly ResolvedPlugin[];
  /** The daemon's home. */
  dataDir: string;
  /** As in `KernelOptions`. */
  sectionOrigins?: ReadonlyMap<string, string>;
}

export interface SetupReport {
  /** The names of the plugins that would load, in their order. */
  plugins: string[];
  /** The ids of the templates that agents could be started from. */
  templates: string[];
  /** What is wrong, each in words that say what to do. */
  problems: string[];
}

/**
 * Finds out what a start would refuse, as far as that can be known without one: whether the plugins fit
 * together and can be set up (`setup` does no I/O; nothing is started), whether the templates are valid
 * and name probes and spawners that there are, whether the config's agents have a template and fit it.
 */
export async function checkSetup(options: CheckSetupOptions): Promise<SetupReport> {
  const { config, plugins, dataDir, sectionOrigins } = options;
  const report: SetupReport = { plugins: [], templates: [], problems: [] };
  const slots = createSlotRegistry();
  let language = createTemplateLanguage([], sectionOrigins);
  const templates = createTemplates({ sources: () => slots.use(templateSource), language: () => language });
  if (!setUp(plugins, slots, nothingRuns(slots, templates, dataDir), report)) return report;
  for (const slot of KERNEL_SLOTS) if (!slots.has(slot)) report.problems.push(problemText(missingSlot(slot)));
  language = createTemplateLanguage(slots.use(templateSection).values(), sectionOrigins);
  await checkTemplates(templates, config, slots, report);
  return report;
}

/** False when the plugins do not even come together. */
function setUp(
  plugins: readonly ResolvedPlugin[],
  slots: SlotRegistry,
  shared: SharedContext,
  report: SetupReport,
): boolean {
  try {
    const { ordered } = orderPlugins(plugins);
    report.plugins = ordered.map(({ definition }) => definition.name);
    createPluginHost({
      plugins: ordered,
      hooks: createHooks(),
      events: createEventHub(),
      slots,
      clock: systemClock,
      log: silent,
      limits: { tapDeadlineMs: 1, pluginDeadlineMs: 1 },
      shared,
      onFault: () => {},
    }).setup();
    return true;
  } catch (error) {
    report.problems.push(problemText(error));
    return false;
  }
}

async function checkTemplates(
  templates: Templates,
  config: Config,
  slots: SlotRegistry,
  report: SetupReport,
): Promise<void> {
  const { items, invalid } = await templates.list();
  const check = (work: () => unknown, who = ""): boolean => {
    try {
      work();
      return true;
    } catch (error) {
      report.problems.push(who + problemText(error));
      return false;
    }
  };
  report.templates = items.map(({ template }) => template.template_id);
  report.problems.push(...invalid.map(({ error }) => error));
  const startable = new Set<string>();
  for (const pinned of items) {
    if (check(() => templates.checkStart(pinned))) startable.add(pinned.template.template_id);
    check(() => checkSpawner(pinned.template.spawner, pinned.origin, slots));
  }
  for (const [index, { agent_id, template_id, params }] of config.agents.entries()) {
    const found = items.find(({ template }) => template.template_id === template_id);
    const who = `agents[${index}] (${agent_id}): `;
    check(() => {
      if (!found) return unknownTemplate(template_id, report.templates);
      const values = { agentId: agent_id, params: parseParams(found, params) };
      if (startable.has(template_id)) templates.checkStart(found, values);
    }, who);
  }
}

function unknownTemplate(templateId: string, known: readonly string[]): never {
  const guess = nearest(templateId, known);
  throw new OpenStarryError("template_not_found", {
    detail: `there is no valid template "${templateId}"`,
    hint: guess ? `did you mean "${guess}"?` : `valid are: ${known.join(", ") || "none"}`,
  });
}

function checkSpawner(name: string, origin: string, slots: SlotRegistry): void {
  const known = [...slots.use(spawner).keys()];
  if (known.includes(name)) return;
  throw new OpenStarryError("spawner_not_found", {
    detail: `template ${origin}: there is no spawner "${name}"`,
    hint: `known: ${known.join(", ") || "none"}`,
  });
}

/** What set-ups get: slots, and a daemon that does nothing. */
function nothingRuns(slots: SlotRegistry, templates: Templates, dataDir: string): SharedContext {
  return {
    clock: systemClock,
    dataDir,
    use: slots.use,
    has: slots.has,
    dispatch: refuse,
    templates,
    agents: refusing(),
    control: refusing(),
    reports: refusing(),
    journal: refusing(),
    services: { publishEndpoint: () => {}, endpoints: () => [], ensure: refuse, get: () => undefined },
    daemon: {
      status: refuse,
      plugins: () => [],
      control: refusing(),
      sockets: { inherited: () => undefined, offer: () => {}, handedOver: () => false },
    },
  };
}

function refuse(): never {
  throw new OpenStarryError("internal", { detail: "nothing runs while a config is checked" });
}

/** An object each of whose functions refuses. */
function refusing<T extends object>(): T {
  return new Proxy({} as T, { get: () => refuse });
}

const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** A problem and what to do about it, in one line. */
export function problemText(error: unknown): string {
  const { message, hint } = toOpenStarryError(error);
  return hint === undefined ? message : `${message} (${hint})`;
}
