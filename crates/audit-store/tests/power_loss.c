/* Preloaded into a process, notes in the file SALLYPORT_TEST_SYNCED what the disk has confirmed by fsync or fdatasync: for
 * each call a line with the file's inode, its birth and its length. Of a file that is written in place, journal-N, what was
 * confirmed is kept as a copy: SALLYPORT_TEST_SYNCED.journal-N. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A copy of what is there now, under a name for the time before the call. */
static int copied(int fd, const char *name, const char *journal, char *made, size_t size) {
  static char content[1 << 22];
  snprintf(made, size, "%s.%s.new", journal, name);
  int out = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  ssize_t length = pread(fd, content, sizeof content, 0);
  int done = out >= 0 && length >= 0 && write(out, content, (size_t)length) == length;
  if (out >= 0) close(out);
  return done;
}

/* What is there before the call is what it confirms. */
static int noted(const char *call, int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
  const char *journal = getenv("SALLYPORT_TEST_SYNCED");
  struct statx found;
  int known = journal && !statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &found) && S_ISREG(found.stx_mode);
  char link[64], path[4096] = "", made[4200], kept[4200];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t end = readlink(link, path, sizeof path - 1);
  const char *name = end > 0 ? strrchr(path, '/') : NULL;
  int in_place = known && name && !strncmp(name, "/journal-", 9);
  /* One thread syncs at a time. */
  if (in_place && !copied(fd, name + 1, journal, made, sizeof made)) abort();
  int result = real(fd);
  if (result == 0 && in_place) {
    snprintf(kept, sizeof kept, "%s.%s", journal, name + 1);
    if (rename(made, kept)) abort();
    return result;
  }
  if (result == 0 && known) {
    char line[128];
    int length = snprintf(line, sizeof line, "%llu %lld.%09u %llu\n", (unsigned long long)found.stx_ino,
                          (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec, (unsigned long long)found.stx_size);
    int out = open(journal, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (out < 0 || write(out, line, (size_t)length) != length) abort();
    close(out);
  }
  return result;
}

int fsync(int fd) { return noted("fsync", fd); }
int fdatasync(int fd) { return noted("fdatasync", fd); }
