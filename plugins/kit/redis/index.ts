// A Redis server and connections to it, published as `openstarry-daemon/kit/redis`. Loads ioredis.
export { type ConnectionOptions, createConnection, type RedisConnection } from "./connection.js";
export { describeRedisError, translateErrors } from "./failures.js";
export {
  checkRedisOptions,
  type RedisServerOptions,
  type RedisTarget,
  redisFields,
  targetOf,
} from "./options.js";
export { createRedisServer, type RedisServer } from "./redis-server.js";
