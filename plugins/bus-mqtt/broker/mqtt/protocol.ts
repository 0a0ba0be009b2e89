import { Readable } from "node:stream";
import {
  Aedes,
  type AuthenticateError,
  type Client,
  type ConnectPacket,
  type PublishPacket,
  type Subscription,
} from "aedes";

/** CONNACK return codes (MQTT 3.1.1, 3.2.2.3). */
export const CONNACK = {
  accepted: 0,
  badClientId: 2,
  unavailable: 3,
  badCredentials: 4,
  forbidden: 5,
} as const;
export type ReturnCode = (typeof CONNACK)[keyof typeof CONNACK];

/** What the protocol asks of those who know what is behind it. A rejection ends the client's connection. */
export interface Desk {
  /** A client asks to be let in. May give it another client identifier. */
  greet(client: Client, packet: ConnectPacket): Promise<ReturnCode>;
  /** It has been told that it is in. */
  ready(client: Client): void;
  /** Its session begins anew. */
  renew(client: Client): Promise<void>;
  /** The subscriptions of its session. */
  subscriptionsOf(clientId: string): Subscription[];
  /** Before a PUBLISH is acknowledged. A will is handed over when its time has come. */
  publish(client: Client, packet: PublishPacket): Promise<void>;
  /** Whether one of QoS 2 with this identifier was published and not released; resolves when it is published. */
  isPublished(client: Client, packet: PublishPacket): Promise<boolean>;
  /** One of QoS 2 that `publish` has let pass. */
  publishOnce(client: Client, packet: PublishPacket): Promise<void>;
  release(client: Client, packetId: number): void;
  /** What it has not released is not its session's any more. */
  forgetUnreleased(client: Client): void;
  /** Whether it is granted. */
  subscribe(client: Client, subscription: Subscription): Promise<boolean>;
  /** It knows that it has subscribed these. */
  subscribed(client: Client, filters: readonly string[]): void;
  unsubscribe(client: Client, filters: readonly string[]): Promise<void>;
  acked(client: Client, packetId: number): void;
  /** Something went wrong that ended a connection, or the broker's own doing. */
  failed(client: Client | undefined, error: unknown): void;
}

/**
 * aedes for the protocol alone: handshakes, keepalive, acknowledgements. It routes and keeps nothing itself; messages
 * go to the desk before they are acknowledged, and reach subscribers from the bus.
 */
export function createProtocol(desk: Desk): Aedes {
  const answer = <T>(asked: Promise<T>, callback: (error: Error | null, value?: T) => void) => {
    asked
      .then(
        (value) => callback(null, value),
        (error: unknown) => callback(asError(error)),
      )
      .catch((error: unknown) => desk.failed(undefined, error));
  };
  const codes = new WeakMap<Client, ReturnCode>();

  const aedes = new Aedes({
    // How often it tells other brokers that it lives: there are none.
    heartbeatInterval: 86_400_000,
    maxClientsIdLength: 0xffff,
    mq: nothingToRoute(),
    persistence: keeperFor(desk),
    preConnect: (client, packet, callback) =>
      answer(desk.greet(client, packet), (error, code) => {
        codes.set(client, code ?? CONNACK.unavailable);
        callback(error, !error);
      }),
    authenticate(client, _username, _password, callback) {
      const returnCode = codes.get(client);
      if (returnCode === CONNACK.accepted) callback(null, true);
      else callback(Object.assign(new Error("not let in"), { returnCode }) as AuthenticateError, null);
    },
    authorizePublish: (client, packet, callback) =>
      client ? answer(desk.publish(client, packet), callback) : callback(new Error("nobody publishes")),
    authorizeSubscribe: (client, subscription, callback) =>
      answer(desk.subscribe(client, subscription), (error, isGranted) =>
        // `null` is SUBACK 128.
        callback(error, isGranted ? subscription : null),
      ),
  });
  aedes.on("clientReady", desk.ready);
  aedes.on("subscribe", (subscriptions, client) => {
    const filters = subscriptions.map(({ topic }) => topic);
    desk.subscribed(client, filters);
  });
  aedes.on("unsubscribe", (filters, client) => {
    // Told afterwards; of those with a session the keeper is asked before.
    if (client.clean) desk.unsubscribe(client, filters).catch((error: unknown) => desk.failed(client, error));
  });
  aedes.on("clientError", desk.failed);
  aedes.on("connectionError", desk.failed);
  (aedes as NodeJS.EventEmitter).on("error", (error) => desk.failed(undefined, error));
  return aedes;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** In place of aedes' own emitter (mqemitter), by which it would deliver. */
function nothingToRoute() {
  const done = (_first: unknown, callback?: () => void) => callback?.();
  const listen = (_topic: string, _listener: unknown, callback?: () => void) => callback?.();
  return { emit: done, on: listen, removeListener: listen, close: (callback?: () => void) => callback?.() };
}

/** What aedes asks of a persistence (aedes-persistence), as far as it is asked for anything here. */
function keeperFor(desk: Desk) {
  const nothing = async () => {};
  const none = () => Readable.from([]);
  return {
    // aedes looks for the word async.
    async setup() {},
    destroy: nothing,
    cleanSubscriptions: (client: Client) => desk.renew(client),
    subscriptionsByClient: async ({ id }: { id: string }) => desk.subscriptionsOf(id),
    addSubscriptions: nothing,
    removeSubscriptions: (client: Client, filters: string[]) => desk.unsubscribe(client, filters),
    subscriptionsByTopic: async () => [],
    async incomingGetPacket(client: Client, packet: PublishPacket) {
      if (await desk.isPublished(client, packet)) return packet;
      throw new Error("it is new");
    },
    incomingStorePacket: (client: Client, packet: PublishPacket) => desk.publishOnce(client, packet),
    incomingDelPacket: async (client: Client, { messageId = 0 }: PublishPacket) =>
      desk.release(client, messageId),
    cleanIncoming: async (client: Client) => desk.forgetUnreleased(client),
    outgoingEnqueue: nothing,
    outgoingEnqueueCombi: nothing,
    outgoingUpdate: nothing,
    outgoingClearMessageId: async (client: Client, { messageId = 0 }: PublishPacket) =>
      desk.acked(client, messageId),
    outgoingStream: none,
    storeRetained: nothing,
    createRetainedStreamCombi: none,
    // While the broker lives aedes has them by itself.
    putWill: nothing,
    delWill: nothing,
    streamWill: none,
  };
}
