import { endianness } from "node:os";
import { errnoError, type Libc, loadLibc } from "../kit/libc.js";

/** One datagram, with who sent it as the kernel says. */
export interface Datagram {
  /** `undefined`: it was longer than what is taken, and is thrown away. */
  readonly text: string | undefined;
  /** 0 when the sender cannot be seen from here. */
  readonly pid: number;
  readonly uid: number;
}

/** Local datagram sockets (unix(7)), which Node does not have, called in libc. Nothing blocks. */
export interface Datagrams {
  /** Binds a new socket at this path, by mode 0600. Throws an errno error. */
  open(path: string): number;
  /** The next datagram, if there is one. */
  receive(fd: number): Datagram | undefined;
  /** Those of the descriptors at which something waits. */
  waiting(fds: readonly number[]): number[];
}

/** Sent to this process when something arrives. Chosen since nobody is ended by it, whoever sends it. */
export const ARRIVAL_SIGNAL = "SIGURG";
const SIGURG = 23;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PASSCRED = 16;
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETSIG = 10;
const O_NONBLOCK = 0o4000;
const O_ASYNC = 0o20000;
const MSG_TRUNC = 0x20;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SCM_CREDENTIALS = 2;
const POLLIN = 1;
const POLLFD_BYTES = 8;

/** What systemd takes: PIPE_BUF. */
const MAX_MESSAGE_BYTES = 4_096;
/** `sun_path` with its end, behind the family. */
const ADDRESS_BYTES = 110;
/**
 * Room for the sender's credentials and no more: descriptors that come along are closed by the kernel, so that
 * nobody can fill this process with them. To close its descriptor is what `BARRIER=1` asks for.
 */
const CONTROL_BYTES = 32;
const UMASK_PRIVATE = 0o177;

/** `undefined` where there is no koffi for this machine, or its structures are not the known ones. */
export function loadDatagrams(): Datagrams | undefined {
  if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch) || endianness() !== "LE") {
    return undefined;
  }
  try {
    const libc = loadLibc();
    return libc && bindTo(libc);
  } catch {
    return undefined;
  }
}

function bindTo(libc: Libc): Datagrams {
  const socket = libc.func("int socket(int domain, int type, int protocol)");
  const bind = libc.func("int bind(int fd, void *address, int length)");
  const close = libc.func("int close(int fd)");
  const fcntl = libc.func("int fcntl(int fd, int command, ...)");
  const setsockopt = libc.func("int setsockopt(int fd, int level, int name, void *value, int length)");
  const recvmsg = libc.func("long recvmsg(int fd, void *message, int flags)");
  const poll = libc.func("int poll(void *fds, unsigned long count, int timeout)");

  const data = Buffer.alloc(MAX_MESSAGE_BYTES);
  const control = Buffer.alloc(CONTROL_BYTES);
  /** struct iovec { void *base; size_t length } */
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(libc.address(data), 0);
  vector.writeBigUInt64LE(BigInt(MAX_MESSAGE_BYTES), 8);
  /** struct msghdr: name 0, iovec 16, their number 24, control 32, its length 40, flags 48 */
  const header = Buffer.alloc(56);

  function check(result: number, call: string) {
    if (result < 0) throw errnoError(call, libc.errno());
  }

  return {
    open(path) {
      const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      check(fd, "socket");
      try {
        const yes = Buffer.alloc(4);
        yes.writeInt32LE(1);
        check(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, yes, yes.length), "setsockopt");
        check(fcntl(fd, F_SETOWN, "int", process.pid), "fcntl");
        check(fcntl(fd, F_SETSIG, "int", SIGURG), "fcntl");
        check(fcntl(fd, F_SETFL, "int", O_NONBLOCK | O_ASYNC), "fcntl");
        const address = Buffer.alloc(ADDRESS_BYTES);
        address.writeUInt16LE(AF_UNIX, 0);
        address.write(path, 2, "utf8");
        const umask = process.umask(UMASK_PRIVATE);
        try {
          check(bind(fd, address, ADDRESS_BYTES), "bind");
        } finally {
          process.umask(umask);
        }
        return fd;
      } catch (error) {
        close(fd);
        throw error;
      }
    },
    receive(fd) {
      header.fill(0);
      header.writeBigUInt64LE(libc.address(vector), 16);
      header.writeBigUInt64LE(1n, 24);
      header.writeBigUInt64LE(libc.address(control), 32);
      header.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40);
      const length = Number(recvmsg(fd, header, MSG_CMSG_CLOEXEC));
      if (length < 0) return undefined;
      const isLong = (header.readInt32LE(48) & MSG_TRUNC) !== 0;
      // struct cmsghdr: length 0, level 8, type 12; then pid 16, uid 20, gid 24.
      const known = header.readBigUInt64LE(40) > 0n && control.readInt32LE(12) === SCM_CREDENTIALS;
      return {
        text: isLong ? undefined : data.toString("utf8", 0, length),
        pid: known ? control.readInt32LE(16) : 0,
        uid: known ? control.readUInt32LE(20) : -1,
      };
    },
    waiting(fds) {
      const polled = Buffer.alloc(fds.length * POLLFD_BYTES);
      for (const [index, fd] of fds.entries()) {
        polled.writeInt32LE(fd, index * POLLFD_BYTES);
        polled.writeInt16LE(POLLIN, index * POLLFD_BYTES + 4);
      }
      if (poll(polled, fds.length, 0) <= 0) return [];
      return fds.filter((_, index) => polled.readInt16LE(index * POLLFD_BYTES + 6) !== 0);
    },
  };
}
