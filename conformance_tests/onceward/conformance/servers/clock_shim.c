/* Preloaded into a server: its wall clock is that of the machine plus an offset that a test moves while it runs.
 *
 * ONCEWARD_CLOCK names a file of 8 bytes, the offset in microseconds as the machine writes a 64-bit integer. Clocks that
 * do not go by the calendar are left alone. Works for programs that read the time through libc; Go and Java do not.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Smaller instants, in seconds, are no calendar's: the condition goes by the time since the machine was started. */
#define SINCE_BOOT 1000000000

static const volatile long long none = 0;
static const volatile long long *offset = &none;

__attribute__((constructor)) static void find_offset(void) {
  const char *path = getenv("ONCEWARD_CLOCK");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *found = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) offset = found;
  close(file);
}

static void move(struct timespec *moment, long long by) {
  moment->tv_sec += by / 1000000;
  moment->tv_nsec += by % 1000000 * 1000;
  if (moment->tv_nsec < 0) {
    moment->tv_nsec += 1000000000;
    moment->tv_sec -= 1;
  } else if (moment->tv_nsec >= 1000000000) {
    moment->tv_nsec -= 1000000000;
    moment->tv_sec += 1;
  }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(now, *offset);
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now != NULL) *now = exact.tv_sec;
  return exact.tv_sec;
}

/* Who waits until an instant of our clock must wait until the same instant of the kernel's. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  if (until->tv_sec < SINCE_BOOT) return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, until);
  struct timespec moment = *until;
  move(&moment, -*offset);
  return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &moment);
}
