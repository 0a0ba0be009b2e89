import { type Command, Option } from "commander";
import { json, type Runner } from "./declare-commands.js";
import { durationText, integer, pair, signalName, states, stream } from "./option-values.js";

export function declareAgentCommands(program: Command, run: Runner): void {
  program.commandsGroup("Agents:");
  program
    .command("run")
    .description("start an agent from a template, or from a command behind --")
    .usage("[options] TEMPLATE\n       openstarry-daemon run [options] --id ID -- COMMAND [ARGUMENT…]")
    .argument("[words...]", "a template, or -- and a command")
    .option("--id <id>", "the agent's id (default: made from the template's name)")
    .option("--param <name=value>", "a parameter; name=@file takes the file's content", pair)
    .option("--label <name=value>", "a label", pair)
    .option("--env <name=value>", "a variable of the agent's environment", pair)
    .option("--wait", "wait until it has ended, print its result, exit with its code")
    .option("--timeout <duration>", "with --wait: give up after this long; the agent runs on", durationText)
    .option("--no-start", "make the record only")
    .addOption(json())
    .action(run(() => import("./commands/run.js").then((it) => it.run)));
  program
    .command("list")
    .alias("ls")
    .description("list the agents")
    .option("--tree", "show who started whom")
    .option("--all", "with the services of plugins")
    .option("--state <state>", "only agents in this state", states)
    .option("--template <id>", "only agents of this template")
    .option("--label <name=value>", "only agents with this label", pair)
    .addOption(json())
    .action(run(() => import("./commands/list.js").then((it) => it.list)));
  program
    .command("top")
    .description("watch what the agents use; c and m sort, q ends it")
    .addOption(new Option("--sort <field>", "the greatest first").choices(["cpu", "memory"]).default("cpu"))
    .option("--interval <duration>", "how often it is looked", durationText, "1s")
    .option("--once", "print it once; so it is without a terminal")
    .option("--all", "with the services of plugins")
    .addOption(json())
    .action(run(() => import("./commands/top.js").then((it) => it.top)));
  program
    .command("logs")
    .description("show what agents print (default: all that live)")
    .argument("[id...]", "agents")
    .option("-f, --follow", "go on with what is printed later")
    .option("-n, --lines <number>", "the last lines of each agent (default: 20; with --since all)", integer)
    .option("--since <time>", 'what was printed since then: "10m" ago, or RFC 3339')
    .option("--until <time>", "what was printed until then")
    .option("--previous", "of the run before the current one")
    .option("--stream <name>", "stdout or stderr only", stream)
    .option("--raw", "the bytes as the agent wrote them, also on a terminal")
    .addOption(json())
    .action(run(() => import("./commands/logs.js").then((it) => it.logs)));
  program
    .command("why")
    .description("explain the state an agent is in")
    .argument("<id>", "the agent")
    .addOption(json())
    .action(run(() => import("./commands/why.js").then((it) => it.why)));
  program
    .command("wait")
    .description("wait until an agent has ended; exit with its code")
    .argument("<id>", "the agent")
    .option("--timeout <duration>", "give up after this long, with exit code 1", durationText)
    .option("--result", "print what the agent left")
    .addOption(json())
    .action(run(() => import("./commands/wait.js").then((it) => it.wait)));
  program
    .command("events")
    .description("show what happened")
    .option("-f, --follow", "go on with what happens later")
    .option("-n, --lines <number>", "the last events", integer, 20)
    .option("--after <id>", "the events after this one instead", integer)
    .option("--agent <id>", "of one agent only")
    .addOption(json())
    .action(run(() => import("./commands/events.js").then((it) => it.events)));
}

export function declareAgentVerbs(program: Command, run: Runner): void {
  const agent = program.command("agent").description("stop, start, restart, signal, show or remove agents");
  const verb = (name: string, description: string) =>
    agent.command(name).description(description).argument("<id...>", "agents");
  const load = (name: "stop" | "start" | "restart" | "signal" | "status" | "rm") =>
    run(() => import("./commands/agent.js").then((it) => it[name]));
  verb("stop", "end agents; their records stay")
    .option("--grace <duration>", "how long they may take before they are killed", durationText)
    .option("--force", "kill them at once")
    .option("--no-wait", "return at once")
    .addOption(json())
    .action(load("stop"));
  verb("start", "start agents that have ended")
    .option("--no-wait", "return at once")
    .addOption(json())
    .action(load("start"));
  verb("restart", "end agents and start them again")
    .option("--no-wait", "return at once")
    .addOption(json())
    .action(load("restart"));
  verb("signal", "send a signal to the agents' own processes")
    .requiredOption("-s, --signal <name>", "the signal, such as SIGHUP", signalName)
    .addOption(json())
    .action(load("signal"));
  verb("status", "show all that is known of agents").addOption(json()).action(load("status"));
  verb("rm", "end agents and forget them")
    .option("--grace <duration>", "how long they may take before they are killed", durationText)
    .option("--force", "kill them at once")
    .addOption(json())
    .action(load("rm"));
}
