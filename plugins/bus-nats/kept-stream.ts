import type { JetStreamManager, StreamConfig, StreamInfo } from "@nats-io/jetstream";
import { isNoStream } from "./failures.js";

/** What this bus has on the server, all of it under its prefix. */
export type Names = ReturnType<typeof namesOf>;

export function namesOf(prefix: string) {
  return {
    stream: prefix,
    /** Where messages are kept. */
    kept: `${prefix}.kept`,
    /** Where the stream tells what it has kept, in its order, with its sequences. */
    live: `${prefix}.live`,
    /** Where messages go that are not kept. */
    passing: `${prefix}.passing`,
    /** A subject under one of these, without it. */
    rest: (subject: string) => subject.slice(subject.indexOf(".", prefix.length + 1) + 1),
  };
}

/** The stream of this bus, made or brought to these limits. Refuses one of the same name that is something else. */
export async function openStream(
  jsm: JetStreamManager,
  { stream, kept, live }: Names,
  { maxMessages, maxBytes }: { maxMessages: number; maxBytes: number },
): Promise<StreamInfo> {
  const limits = { max_msgs: maxMessages, max_bytes: maxBytes };
  const found = await find(jsm, stream);
  if (!found) {
    return jsm.streams.add({
      name: stream,
      description: "openstarry-daemon: the message bus",
      subjects: [`${kept}.>`],
      storage: "file",
      retention: "limits",
      discard: "old",
      republish: { src: `${kept}.>`, dest: `${live}.>` },
      ...limits,
    });
  }
  const { config } = found;
  if (!isOurs(config, kept, live)) {
    throw new Error(`the stream ${stream} on the server was not made by this plugin: choose another prefix`);
  }
  if (config.max_msgs === maxMessages && config.max_bytes === maxBytes) return found;
  return jsm.streams.update(stream, limits);
}

async function find(jsm: JetStreamManager, stream: string): Promise<StreamInfo | undefined> {
  try {
    return await jsm.streams.info(stream);
  } catch (error) {
    if (isNoStream(error)) return undefined;
    throw error;
  }
}

/** What a replica count or a placement may have been changed to is the operator's own. */
function isOurs(
  { subjects, storage, republish, retention, discard }: StreamConfig,
  kept: string,
  live: string,
) {
  return (
    subjects?.join() === `${kept}.>` &&
    storage === "file" &&
    retention === "limits" &&
    discard === "old" &&
    republish?.dest === `${live}.>`
  );
}
