/*
 * LD_PRELOAD shim that ends its process by SIGKILL at a chosen moment of writing a file whose name ends in "-wal".
 * WALRUST_SHIM=sync:N   at the Nth sync that follows a commit frame, before the sync: the commit frame is in the file,
 *                       the wal-index does not know it yet (synchronous=FULL syncs in between).
 * WALRUST_SHIM=write:N  after the Nth write to the file, mostly in the middle of a commit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { frame_header_size = 24 };
static long writes_left = -1, syncs_left = -1;
static int commit_pending;

__attribute__((constructor)) static void configure(void) {
  const char *plan = getenv("WALRUST_SHIM");
  if (plan == NULL) return;
  if (strncmp(plan, "sync:", 5) == 0) syncs_left = atol(plan + 5);
  if (strncmp(plan, "write:", 6) == 0) writes_left = atol(plan + 6);
}

static int is_wal(int fd) {
  char link[64], path[PATH_MAX];
  if (syncs_left < 0 && writes_left < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path);
  return length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void after_write(int fd, const unsigned char *bytes, size_t count) {
  if (!is_wal(fd)) return;
  /* A frame header is written by itself; its second word is the database size of a commit frame. */
  if (count == frame_header_size) commit_pending = (bytes[4] | bytes[5] | bytes[6] | bytes[7]) != 0;
  if (writes_left > 0 && --writes_left == 0) die();
}

static void before_sync(int fd) {
  if (!is_wal(fd) || !commit_pending) return;
  commit_pending = 0;
  if (syncs_left > 0 && --syncs_left == 0) die();
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  static ssize_t (*next)(int, const void *, size_t, off_t);
  if (next == NULL) next = dlsym(RTLD_NEXT, "pwrite");
  ssize_t result = next(fd, bytes, count, offset);
  after_write(fd, bytes, count);
  return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  static ssize_t (*next)(int, const void *, size_t, off64_t);
  if (next == NULL) next = dlsym(RTLD_NEXT, "pwrite64");
  ssize_t result = next(fd, bytes, count, offset);
  after_write(fd, bytes, count);
  return result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  static ssize_t (*next)(int, const void *, size_t);
  if (next == NULL) next = dlsym(RTLD_NEXT, "write");
  ssize_t result = next(fd, bytes, count);
  after_write(fd, bytes, count);
  return result;
}

int fdatasync(int fd) {
  static int (*next)(int);
  if (next == NULL) next = dlsym(RTLD_NEXT, "fdatasync");
  before_sync(fd);
  return next(fd);
}

int fsync(int fd) {
  static int (*next)(int);
  if (next == NULL) next = dlsym(RTLD_NEXT, "fsync");
  before_sync(fd);
  return next(fd);
}
