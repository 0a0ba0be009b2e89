import { OpenStarryError, type Template } from "../../core/index.js";

/** Variables with which whoever sets them runs code of their own in the process. */
const CODE_LOADING = new Set([
  "LD_PRELOAD",
  "LD_LIBRARY_PATH",
  "NODE_OPTIONS",
  "NODE_PATH",
  "BASH_ENV",
  "ENV",
  "PATH",
  "PYTHONPATH",
  "PYTHONSTARTUP",
  "JAVA_TOOL_OPTIONS",
  "GIT_EXTERNAL_DIFF",
  "DOTNET_STARTUP_HOOKS",
]);

/** Throws `env_forbidden` for a variable that loads code, unless the template itself names it. */
export function checkEnv(
  env: Readonly<Record<string, string>>,
  template: Pick<Template, "template_id" | "env" | "pass_env"> | undefined,
): void {
  const named = new Set([
    ...Object.keys(template?.env ?? {}),
    ...(template?.pass_env ?? []).map((name) => name.replace(/\?$/, "")),
  ]);
  const forbidden = Object.keys(env).filter((name) => CODE_LOADING.has(name) && !named.has(name));
  if (forbidden.length === 0) return;
  throw new OpenStarryError("env_forbidden", {
    detail: `env: ${forbidden.join(", ")} can make the process run other code than its template says`,
    hint: template
      ? `leave it out, or name it in env or pass_env of template ${template.template_id}`
      : "leave it out, or write a template that names it in env or pass_env",
  });
}

/** Whether the template has to be looked up to judge this environment. */
export function needsTemplate(env: Readonly<Record<string, string>>): boolean {
  return Object.keys(env).some((name) => CODE_LOADING.has(name));
}
