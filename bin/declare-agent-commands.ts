import { type Command, Option } from "commander";
import { json, type Runner } from "./declare-commands.js";
import { durationText, integer, pair, signalName, states, stream } from "./option-values.js";

export function declareAgentCommands(program: Command, run: Runner): void {
  program.commandsGroup("Agents:");
  program
    .command("run")
    .description("start an agent from a template, or from a command after --")
    .usage("[options] TEMPLATE\n       openstarry-daemon run [options] --id ID -- COMMAND [ARG…]")
    .argument("[template...]", "template ID, or -- COMMAND [ARG…]")
    .option("--id <id>", "agent ID (default: derived from the template's name)")
    .option("--param <name=value>", "template parameter (repeatable); name=@file reads a file", pair)
    .option("--label <name=value>", "label (repeatable)", pair)
    .option("--env <name=value>", "environment variable (repeatable)", pair)
    .option("--wait", "wait until it has ended, print its result and exit with its code")
    .option(
      "--timeout <duration>",
      "with --wait: exit with 1 after this long; the agent keeps running",
      durationText,
    )
    .option("--no-start", "create the agent without starting it")
    .addOption(json())
    .action(run(() => import("./commands/run.js").then((it) => it.run)));
  program
    .command("list")
    .alias("ls")
    .description("list agents")
    .option("--tree", "show which agent started which")
    .option("--all", "include plugin services")
    .option("--state <state>", "only agents in this state", states)
    .option("--template <id>", "only agents from this template")
    .option("--label <name=value>", "only agents with this label", pair)
    .addOption(json())
    .action(run(() => import("./commands/list.js").then((it) => it.list)));
  program
    .command("top")
    .description("show live resource usage")
    .addOption(
      new Option("--sort <field>", "sort by, highest first").choices(["cpu", "memory"]).default("cpu"),
    )
    .option("--interval <duration>", "refresh interval", durationText, "1s")
    .option("--once", "print once and exit (default when stdout is not a terminal)")
    .option("--all", "include plugin services")
    .addOption(json())
    .action(run(() => import("./commands/top.js").then((it) => it.top)));
  program
    .command("logs")
    .description("show agent output (default: all running agents)")
    .argument("[id...]", "agent IDs")
    .option("-f, --follow", "keep printing new output")
    .option(
      "-n, --lines <number>",
      "number of lines for each agent (default: 20, or all with --since)",
      integer,
    )
    .option("--since <time>", 'only output since then: "10m" (10 minutes ago) or RFC 3339')
    .option("--until <time>", "only output until then")
    .option("--previous", "show the previous run's output")
    .option("--stream <name>", "only stdout or stderr", stream)
    .option("--raw", "print raw bytes, even on a terminal")
    .addOption(json())
    .action(run(() => import("./commands/logs.js").then((it) => it.logs)));
  program
    .command("why")
    .description("explain the state of an agent")
    .argument("<id>", "agent ID")
    .addOption(json())
    .action(run(() => import("./commands/why.js").then((it) => it.why)));
  program
    .command("wait")
    .description("wait until an agent has ended and exit with its code")
    .argument("<id>", "agent ID")
    .option("--timeout <duration>", "exit with 1 after this long", durationText)
    .option("--result", "print the agent's result")
    .addOption(json())
    .action(run(() => import("./commands/wait.js").then((it) => it.wait)));
  program
    .command("events")
    .description("show the last events")
    .option("-f, --follow", "keep printing new events")
    .option("-n, --lines <number>", "number of events", integer, 20)
    .option("--after <id>", "start after this event ID", integer)
    .option("--agent <id>", "show only this agent's events")
    .addOption(json())
    .action(run(() => import("./commands/events.js").then((it) => it.events)));
}

export function declareAgentVerbs(program: Command, run: Runner): void {
  const agent = program
    .command("agent")
    .description("start, stop, restart, signal, inspect or remove agents")
    .helpCommand(false);
  const verb = (name: string, description: string) =>
    agent.command(name).description(description).argument("<id...>", "agent IDs");
  const load = (name: "stop" | "start" | "restart" | "signal" | "status" | "rm") =>
    run(() => import("./commands/agent.js").then((it) => it[name]));
  verb("stop", "stop agents; their records stay")
    .option("--grace <duration>", "grace period before SIGKILL (default: the template's)", durationText)
    .option("--force", "kill at once")
    .option("--no-wait", "return without waiting")
    .addOption(json())
    .action(load("stop"));
  verb("start", "start agents that have ended")
    .option("--no-wait", "return without waiting")
    .addOption(json())
    .action(load("start"));
  verb("restart", "stop agents and start them again")
    .option("--no-wait", "return without waiting")
    .addOption(json())
    .action(load("restart"));
  verb("signal", "send a signal to the agents' main processes")
    .requiredOption("-s, --signal <name>", "signal name, such as SIGHUP", signalName)
    .addOption(json())
    .action(load("signal"));
  verb("status", "show agent details").addOption(json()).action(load("status"));
  verb("rm", "stop agents and delete them with their output")
    .option("--grace <duration>", "grace period before SIGKILL (default: the template's)", durationText)
    .option("--force", "kill at once")
    .addOption(json())
    .action(load("rm"));
}
