import type { JetStreamManager, StreamConfig, StreamInfo } from "@nats-io/jetstream";
import { isStreamNotFound } from "./failures.js";

/** The names that this bus uses on the server, all under its prefix. */
export type Names = ReturnType<typeof namesOf>;

export function namesOf(prefix: string) {
  return {
    stream: prefix,
    /** Where kept messages are published: the stream's subjects. */
    kept: `${prefix}.kept`,
    /** Where the stream republishes what it has stored, in order and with its sequences. */
    live: `${prefix}.live`,
    /** Where messages with `keep: false` are published. */
    transient: `${prefix}.passing`,
    /** Returns a subject without the part that is one of these names. */
    withoutPrefix: (subject: string) => subject.slice(subject.indexOf(".", prefix.length + 1) + 1),
  };
}

/** Creates the stream, or updates its limits. Throws when a stream of this name exists and is a different one. */
export async function openStream(
  jsm: JetStreamManager,
  { stream, kept, live }: Names,
  { maxMessages, maxBytes }: { maxMessages: number; maxBytes: number },
): Promise<StreamInfo> {
  const limits = { max_msgs: maxMessages, max_bytes: maxBytes };
  const existing = await find(jsm, stream);
  if (!existing) {
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
  const { config } = existing;
  if (!isOurs(config, kept, live)) {
    throw new Error(`the stream ${stream} on the server was not made by this plugin: choose another prefix`);
  }
  if (config.max_msgs === maxMessages && config.max_bytes === maxBytes) return existing;
  return jsm.streams.update(stream, limits);
}

async function find(jsm: JetStreamManager, stream: string): Promise<StreamInfo | undefined> {
  try {
    return await jsm.streams.info(stream);
  } catch (error) {
    if (isStreamNotFound(error)) return undefined;
    throw error;
  }
}

/** Compares only what this plugin depends on: operators may change replicas and placement. */
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
