import { z } from "zod";
import {
  duration,
  type PinnedTemplate,
  type PluginContext,
  type ProbeRole,
  type ReadinessRules,
  type TemplateSection,
  type TemplateValues,
} from "../../core/index.js";
import { chooseProbe } from "./choose-probe.js";

/** How long a start-up may take where the template does not say. */
const DEFAULT_START_MS = 60_000;
/** How long each step against a standstill may take to help. */
const DEFAULT_STEP_MS = 60_000;

/**
 * Signals that wake an agent which makes no progress: none that ends a program which does not handle it,
 * unless the template asks for that one.
 */
const NUDGES = ["SIGCONT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGWINCH"] as const;

const startup = z.strictObject({ timeout: duration() });
type StartupRules = z.output<typeof startup>;

/** `type` names a probe; the other keys are that probe's own. */
const liveness = z.looseObject({ type: z.string().max(63) });
export type LivenessRules = z.output<typeof liveness>;

const readiness = liveness.extend({ timeout: duration().optional() });
type WrittenReadiness = z.output<typeof readiness>;

const progress = z
  .strictObject({
    deadline: duration({ min: "1s" }),
    grace: duration().default(DEFAULT_STEP_MS),
    nudge: z.enum(NUDGES).default("SIGCONT"),
  })
  .transform(({ deadline, grace, nudge }) => ({
    deadlineMs: deadline,
    graceMs: grace,
    nudge: nudge as string,
  }));
export type ProgressRules = z.output<typeof progress>;

declare module "../../core/index.js" {
  interface TemplateSections {
    liveness?: LivenessRules;
    progress?: ProgressRules;
  }
  interface TemplateSectionInputs {
    startup?: z.input<typeof startup>;
    readiness?: z.input<typeof readiness>;
    liveness?: z.input<typeof liveness>;
    progress?: z.input<typeof progress>;
  }
}

/** The sections about how runs are watched. A template that names a probe which no plugin provides is refused. */
export function watchSections(ctx: Pick<PluginContext, "use">): TemplateSection[] {
  const checkStart = (role: ProbeRole) => (_: unknown, pinned: PinnedTemplate, values?: TemplateValues) => {
    chooseProbe(ctx, pinned, role, values);
  };
  return [
    {
      name: "startup",
      description: "Its start takes long.",
      schema: startup,
      check: (_, template) =>
        startOf(template)
          ? undefined
          : "nothing tells when the start-up is over: declare readiness or liveness",
      // The readiness of a template says it all.
      complete: () => undefined,
    },
    {
      name: "readiness",
      description: "How it tells that it is ready. Without it, it is ready as soon as its process exists.",
      schema: readiness,
      placeholders: true,
      complete: (_, template) => startOf(template),
      checkStart: checkStart("readiness"),
    },
    {
      name: "liveness",
      description: "How it is watched while it runs. Without it, only its process counts.",
      schema: liveness,
      placeholders: true,
      checkStart: checkStart("liveness"),
    },
    {
      name: "progress",
      description: "How long it may go without progress, and what is done then.",
      schema: progress,
    },
  ];
}

interface Written {
  startup?: StartupRules;
  readiness?: WrittenReadiness;
  liveness?: LivenessRules;
}

/**
 * What makes a start-up complete, and how long it may take. An agent that declares `startup` and no readiness is
 * ready when its liveness probe succeeds for the first time.
 */
function startOf(template: object): ReadinessRules | undefined {
  const { startup, readiness, liveness }: Written = template;
  const declared = readiness?.type === "none" ? undefined : readiness;
  const { timeout: _, ...section }: Partial<WrittenReadiness> = declared ?? (startup && liveness) ?? {};
  if (section.type === undefined) return undefined;
  const timeoutMs = declared?.timeout ?? startup?.timeout ?? DEFAULT_START_MS;
  return { ...section, type: section.type, timeoutMs };
}
