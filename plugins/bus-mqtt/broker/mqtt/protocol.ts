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

/** What the protocol calls for the packets of a client. A rejection closes the client's connection. */
export interface PacketHandlers {
  /** Decides whether a client may connect. May change the packet's client id. */
  onConnect(client: Client, packet: ConnectPacket): Promise<ReturnCode>;
  /** Called after CONNACK. */
  onReady(client: Client): void;
  /** Deletes the client's persistent session: it has connected with CleanSession. */
  resetSession(client: Client): Promise<void>;
  /** Returns the subscriptions of a persistent session. */
  subscriptionsOf(clientId: string): Subscription[];
  /** Called for a PUBLISH before it is acknowledged, and for a will. */
  onPublish(client: Client, packet: PublishPacket): Promise<void>;
  /** Resolves with whether this QoS 2 message was published and not released yet. */
  isPublished(client: Client, packet: PublishPacket): Promise<boolean>;
  /** Publishes a QoS 2 message that `onPublish` has accepted. */
  publishQos2(client: Client, packet: PublishPacket): Promise<void>;
  onPubrel(client: Client, packetId: number): void;
  /** Forgets the QoS 2 messages that the client has not released. */
  clearInflight(client: Client): void;
  /** Resolves with whether the subscription is granted. */
  onSubscribe(client: Client, subscription: Subscription): Promise<boolean>;
  /** Called after SUBACK. */
  onSubscribed(client: Client, filters: readonly string[]): void;
  onUnsubscribe(client: Client, filters: readonly string[]): Promise<void>;
  onPuback(client: Client, packetId: number): void;
  /** Called for an error that ended a connection, or an internal one. */
  onError(client: Client | undefined, error: unknown): void;
}

/**
 * Creates an aedes broker that does only the protocol: handshakes, keepalive, acknowledgements. It neither routes nor
 * stores messages: the handlers publish them to the bus before they are acknowledged, and subscriptions read from it.
 */
export function createProtocol(handlers: PacketHandlers): Aedes {
  const respond = <T>(result: Promise<T>, callback: (error: Error | null, value?: T) => void) => {
    result
      .then(
        (value) => callback(null, value),
        (error: unknown) => callback(asError(error)),
      )
      .catch((error: unknown) => handlers.onError(undefined, error));
  };
  const returnCodes = new WeakMap<Client, ReturnCode>();

  const aedes = new Aedes({
    // How often it announces itself to other brokers, of which there are none.
    heartbeatInterval: 86_400_000,
    maxClientsIdLength: 0xffff,
    mq: nullEmitter(),
    persistence: persistenceFor(handlers),
    preConnect: (client, packet, callback) =>
      respond(handlers.onConnect(client, packet), (error, code) => {
        returnCodes.set(client, code ?? CONNACK.unavailable);
        callback(error, !error);
      }),
    authenticate(client, _username, _password, callback) {
      const returnCode = returnCodes.get(client);
      if (returnCode === CONNACK.accepted) callback(null, true);
      else
        callback(Object.assign(new Error("connection refused"), { returnCode }) as AuthenticateError, null);
    },
    authorizePublish: (client, packet, callback) =>
      client
        ? respond(handlers.onPublish(client, packet), callback)
        : callback(new Error("only clients publish")),
    authorizeSubscribe: (client, subscription, callback) =>
      respond(handlers.onSubscribe(client, subscription), (error, isGranted) =>
        // `null` makes aedes send SUBACK 128.
        callback(error, isGranted ? subscription : null),
      ),
  });
  aedes.on("clientReady", handlers.onReady);
  aedes.on("subscribe", (subscriptions, client) => {
    const filters = subscriptions.map(({ topic }) => topic);
    handlers.onSubscribed(client, filters);
  });
  aedes.on("unsubscribe", (filters, client) => {
    // For persistent sessions, `removeSubscriptions` of the persistence was called before.
    if (client.clean)
      handlers.onUnsubscribe(client, filters).catch((error: unknown) => handlers.onError(client, error));
  });
  aedes.on("clientError", handlers.onError);
  aedes.on("connectionError", handlers.onError);
  (aedes as NodeJS.EventEmitter).on("error", (error) => handlers.onError(undefined, error));
  return aedes;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Replaces aedes' emitter (mqemitter), through which it would route messages. */
function nullEmitter() {
  const done = (_first: unknown, callback?: () => void) => callback?.();
  const listen = (_topic: string, _listener: unknown, callback?: () => void) => callback?.();
  return { emit: done, on: listen, removeListener: listen, close: (callback?: () => void) => callback?.() };
}

/** Implements aedes' persistence (aedes-persistence) by the handlers; storing messages is left to the bus. */
function persistenceFor(handlers: PacketHandlers) {
  const nothing = async () => {};
  const none = () => Readable.from([]);
  return {
    // Must be declared `async`: aedes checks the function's constructor.
    async setup() {},
    destroy: nothing,
    cleanSubscriptions: (client: Client) => handlers.resetSession(client),
    subscriptionsByClient: async ({ id }: { id: string }) => handlers.subscriptionsOf(id),
    addSubscriptions: nothing,
    removeSubscriptions: (client: Client, filters: string[]) => handlers.onUnsubscribe(client, filters),
    subscriptionsByTopic: async () => [],
    async incomingGetPacket(client: Client, packet: PublishPacket) {
      if (await handlers.isPublished(client, packet)) return packet;
      // Tells aedes that the message is not a repetition.
      throw new Error("no such message");
    },
    incomingStorePacket: (client: Client, packet: PublishPacket) => handlers.publishQos2(client, packet),
    incomingDelPacket: async (client: Client, { messageId = 0 }: PublishPacket) =>
      handlers.onPubrel(client, messageId),
    cleanIncoming: async (client: Client) => handlers.clearInflight(client),
    outgoingEnqueue: nothing,
    outgoingEnqueueCombi: nothing,
    outgoingUpdate: nothing,
    outgoingClearMessageId: async (client: Client, { messageId = 0 }: PublishPacket) =>
      handlers.onPuback(client, messageId),
    outgoingStream: none,
    storeRetained: nothing,
    createRetainedStreamCombi: none,
    // aedes keeps wills itself while the broker runs.
    putWill: nothing,
    delWill: nothing,
    streamWill: none,
  };
}
