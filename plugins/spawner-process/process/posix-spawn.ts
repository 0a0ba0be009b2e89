import { constants } from "node:os";
import { errnoError, type Libc, loadLibc } from "../../kit/libc.js";

/**
 * posix_spawn(3) and what belongs to it, called in libc. Node forks, which takes longer the more memory
 * the daemon has, and leaves every page of it to be faulted in again; posix_spawn shares the memory until
 * the program is executed.
 */
export interface PosixSpawn {
  /** The pid of a child in a session of its own, all signals at their defaults. Throws an errno error. */
  spawn(options: PosixSpawnOptions): number;
  /** Two ends of a connected local stream; closed by exec. */
  socketPair(): [number, number];
  /** Collects a child that has ended; false while it has not. */
  reap(pid: number): boolean;
}

export interface PosixSpawnOptions {
  /** Absolute. */
  file: string;
  /** With the program's own name first. */
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  cwd: string;
  /** What the child has as descriptors 3, 4, …; 0, 1 and 2 are /dev/null. */
  fds: readonly number[];
}

const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
/** glibc 2.26 and musl 1.1.22. */
const POSIX_SPAWN_SETSID = 0x80;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x80000;
const WNOHANG = 1;
/** Room for the opaque structures of any libc: the largest known is 336 bytes. */
const OPAQUE_BYTES = 1_024;
const SIGSET_BYTES = 128;

/** `undefined` where there is no koffi for this machine, or its libc lacks a function. */
export function loadPosixSpawn(): PosixSpawn | undefined {
  try {
    const libc = loadLibc();
    return libc && bind(libc);
  } catch {
    return undefined;
  }
}

function bind(libc: Libc): PosixSpawn {
  const posixSpawn = libc.func(
    "int posix_spawn(_Out_ int *pid, str path, void *fa, void *attr, str *argv, str *envp)",
  );
  const actionsInit = libc.func("int posix_spawn_file_actions_init(void *fa)");
  const actionsDestroy = libc.func("int posix_spawn_file_actions_destroy(void *fa)");
  const addDup2 = libc.func("int posix_spawn_file_actions_adddup2(void *fa, int fd, int newfd)");
  const addClose = libc.func("int posix_spawn_file_actions_addclose(void *fa, int fd)");
  const addOpen = libc.func(
    "int posix_spawn_file_actions_addopen(void *fa, int fd, str path, int flags, int mode)",
  );
  const addChdir = libc.func("int posix_spawn_file_actions_addchdir_np(void *fa, str path)");
  const attrInit = libc.func("int posix_spawnattr_init(void *attr)");
  const attrFlags = libc.func("int posix_spawnattr_setflags(void *attr, short flags)");
  const attrSigDefault = libc.func("int posix_spawnattr_setsigdefault(void *attr, void *set)");
  const attrSigMask = libc.func("int posix_spawnattr_setsigmask(void *attr, void *set)");
  const socketpair = libc.func("int socketpair(int domain, int type, int protocol, _Out_ int *sv)");
  const waitpid = libc.func("int waitpid(int pid, _Out_ int *status, int options)");

  const attributes = Buffer.alloc(OPAQUE_BYTES);
  attrInit(attributes);
  attrFlags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  attrSigDefault(attributes, Buffer.alloc(SIGSET_BYTES, 0xff));
  attrSigMask(attributes, Buffer.alloc(SIGSET_BYTES));

  /** By way of numbers above all: one of them may lie where another one has to go. */
  function moveDescriptors(actions: Buffer, fds: readonly number[]) {
    const above = Math.max(2 + fds.length, ...fds) + 1;
    for (const [index, fd] of fds.entries()) addDup2(actions, fd, above + index);
    for (const index of fds.keys()) {
      addDup2(actions, above + index, 3 + index);
      addClose(actions, above + index);
    }
  }

  return {
    spawn({ file, argv, env, cwd, fds }) {
      const actions = Buffer.alloc(OPAQUE_BYTES);
      actionsInit(actions);
      try {
        addOpen(actions, 0, "/dev/null", 0, 0);
        addOpen(actions, 1, "/dev/null", 1, 0);
        addOpen(actions, 2, "/dev/null", 1, 0);
        moveDescriptors(actions, fds);
        addChdir(actions, cwd);
        const pid = [0];
        const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
        const error = posixSpawn(pid, file, actions, attributes, [...argv, null], [...variables, null]);
        if (error !== 0) throw errnoError("posix_spawn", error);
        return pid[0] ?? 0;
      } finally {
        actionsDestroy(actions);
      }
    },
    socketPair() {
      const ends = [0, 0];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) !== 0) {
        throw errnoError("socketpair", constants.errno.EMFILE);
      }
      return [ends[0] ?? -1, ends[1] ?? -1];
    },
    reap: (pid) => waitpid(pid, [0], WNOHANG) !== 0,
  };
}
