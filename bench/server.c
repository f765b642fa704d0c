/*
 * A small HTTP/1.1 server for benchmarks.
 *
 * It answers the few routes the benchmarks use as fast as a thread per connection can, so that what is measured is the
 * client. It binds 127.0.0.1 only, prints its port, and ends when its standard input does.
 *
 *   GET  .../ping                             200, empty
 *   GET  .../stats                            {"connections":n,"requests":n,"ended":seconds}, the time of the last terminal event
 *   GET  .../files/download?path=/size/BYTES  that many bytes of a fixed pattern
 *   POST .../files/upload                     reads and discards the body; 200, empty
 *   POST .../command                          a stream of events; "events N" as the command gives N lines of output
 *
 * Usage: server [--port N]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_SIZE (64 * 1024)
#define BLOCK_SIZE (1024 * 1024)
#define COMMAND_SIZE (1024 * 1024)
#define EVENT_INTERVAL 6e-6 /* seconds; an execd on loopback */

static long connections, requests;
static struct timespec ended; /* when the last terminal event was sent */
/* Whole repetitions of a line, so that byte number k of a download is pattern[k % 37] however large the download is. */
#define LINE "0123456789abcdefghijklmnopqrstuvwxyz\n"
static char pattern[37 * 28000];

/* One connection: its socket, the bytes read and not yet used, and a buffer for output. */
struct connection {
  int fd;
  size_t start, end;
  char *in;            /* BLOCK_SIZE bytes */
  char *out;           /* BLOCK_SIZE bytes */
  size_t filled;       /* bytes waiting in out */
};

/* The facts in the head of a request. */
struct request {
  char method[16];
  char target[4096];
  long long length;
  int chunked, expects_continue, close;
};

/* ---- output ---------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const char *bytes, size_t count)
{
  while (count > 0) {
    ssize_t done = send(fd, bytes, count, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return -1;
    bytes += done;
    count -= (size_t)done;
  }
  return 0;
}

static int flush(struct connection *c)
{
  size_t count = c->filled;
  c->filled = 0;
  return write_all(c->fd, c->out, count);
}

/* Appends formatted text (short ones only) to the output buffer. */
__attribute__((format(printf, 2, 3))) static int put(struct connection *c, const char *format, ...)
{
  va_list arguments;
  int count;
  if (c->filled + 1024 > BLOCK_SIZE && flush(c) < 0) return -1;
  va_start(arguments, format);
  count = vsnprintf(c->out + c->filled, 1024, format, arguments);
  va_end(arguments);
  if (count < 0 || count >= 1024) return -1;
  c->filled += (size_t)count;
  return 0;
}

/* One event as one chunk, in the framing of a sandbox: the JSON object and an empty line. */
static int put_event(struct connection *c, const char *event)
{
  return put(c, "%zx\r\n%s\n\n\r\n", strlen(event) + 2, event);
}

static int respond(struct connection *c, const char *status, const char *body)
{
  if (put(c, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body),
          *body ? "Content-Type: application/json\r\n" : "", body) < 0) return -1;
  return flush(c);
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

/* Reads more bytes behind those not yet used; 0 at the end of the stream or on an error. */
static int fill(struct connection *c)
{
  ssize_t count;
  if (c->start == c->end) c->start = c->end = 0;
  if (c->end == BLOCK_SIZE) {
    memmove(c->in, c->in + c->start, c->end - c->start);
    c->end -= c->start;
    c->start = 0;
    if (c->end == BLOCK_SIZE) return 0;
  }
  do {
    count = recv(c->fd, c->in + c->end, BLOCK_SIZE - c->end, 0);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) return 0;
  c->end += (size_t)count;
  return 1;
}

/* Uses up to `wanted` bytes that have arrived, reading more only when there are none. */
static size_t take(struct connection *c, long long wanted, const char **bytes)
{
  size_t count;
  if (c->start == c->end && !fill(c)) return 0;
  count = c->end - c->start;
  if ((long long)count > wanted) count = (size_t)wanted;
  *bytes = c->in + c->start;
  c->start += count;
  return count;
}

/* A line without its end, copied to `line`; 0 when there is none. */
static int read_line(struct connection *c, char *line, size_t size)
{
  for (;;) {
    char *newline = memchr(c->in + c->start, '\n', c->end - c->start);
    if (newline) {
      size_t count = (size_t)(newline - (c->in + c->start));
      size_t copied = count < size - 1 ? count : size - 1;
      memcpy(line, c->in + c->start, copied);
      if (copied > 0 && line[copied - 1] == '\r') copied--;
      line[copied] = '\0';
      c->start += count + 1;
      return 1;
    }
    if (c->end - c->start > HEAD_SIZE || !fill(c)) return 0;
  }
}

static int read_head(struct connection *c, struct request *r)
{
  char line[8192];
  memset(r, 0, sizeof *r);
  if (!read_line(c, line, sizeof line)) return 0;
  if (sscanf(line, "%15s %4095s", r->method, r->target) != 2) return 0;
  while (read_line(c, line, sizeof line)) {
    if (line[0] == '\0') return 1;
    if (strncasecmp(line, "content-length:", 15) == 0) r->length = atoll(line + 15);
    else if (strncasecmp(line, "transfer-encoding:", 18) == 0) r->chunked = strcasestr(line, "chunked") != NULL;
    else if (strncasecmp(line, "expect:", 7) == 0) r->expects_continue = 1;
    else if (strncasecmp(line, "connection:", 11) == 0) r->close = strcasestr(line, "close") != NULL;
  }
  return 0;
}

/* Reads `count` bytes of a body; the first ones are kept in `kept` (which may be NULL) up to its size. */
static int read_bytes(struct connection *c, long long count, char *kept, size_t size, size_t *used)
{
  while (count > 0) {
    const char *bytes;
    size_t got = take(c, count, &bytes);
    if (got == 0) return 0;
    if (kept && *used < size) {
      size_t copied = got < size - *used ? got : size - *used;
      memcpy(kept + *used, bytes, copied);
      *used += copied;
    }
    count -= (long long)got;
  }
  return 1;
}

/* Reads a whole body; with `kept`, keeps its beginning as a C string. */
static int read_body(struct connection *c, const struct request *r, char *kept, size_t size)
{
  char line[256];
  size_t used = 0;
  int ok = 1;
  if (r->expects_continue && write_all(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25) < 0) return 0;
  if (!r->chunked) {
    ok = read_bytes(c, r->length, kept, size - 1, &used);
  } else {
    long long count;
    do {
      if (!read_line(c, line, sizeof line)) return 0;
      count = strtoll(line, NULL, 16);
      if (count < 0 || !read_bytes(c, count, kept, size - 1, &used)) return 0;
      if (count > 0 && !read_line(c, line, sizeof line)) return 0;
    } while (count > 0);
    do {
      ok = read_line(c, line, sizeof line);
    } while (ok && line[0] != '\0');
  }
  if (kept) kept[used] = '\0';
  return ok;
}

/* ---- routes ---------------------------------------------------------------------------------------------------- */

static int download(struct connection *c, const char *query)
{
  const char *size = query ? strstr(query, "size") : NULL;
  long long left;
  if (!size) return respond(c, "404 Not Found", "{\"code\":\"FILE_NOT_FOUND\",\"message\":\"want /size/BYTES\"}");
  size += 4;
  size += strncasecmp(size, "%2F", 3) == 0 ? 3 : 1;
  left = atoll(size);
  if (put(c, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
             "Content-Length: %lld\r\n\r\n", left) < 0) return -1;
  if (flush(c) < 0) return -1;
  while (left > 0) {
    size_t count = left < (long long)sizeof pattern ? (size_t)left : sizeof pattern;
    if (write_all(c->fd, pattern, count) < 0) return -1;
    left -= (long long)count;
  }
  return 0;
}

/* N of a body with "command":"events N", or -1. */
static long events_wanted(const char *body)
{
  const char *key = strstr(body, "\"command\"");
  long count;
  if (!key) return -1;
  key += 9;
  while (*key == ' ' || *key == ':') key++;
  return sscanf(key, "\"events %ld", &count) == 1 ? count : -1;
}

static double seconds_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Without sleeping, which takes longer than these times. */
static void wait_until(double moment)
{
  while (seconds_now() < moment) continue;
}

static int command(struct connection *c, const char *body)
{
  long count = events_wanted(body), number;
  double start = seconds_now();
  char event[512];
  const struct timespec tail = { 1, 0 };
  if (put(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
             "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n") < 0) return -1;
  if (put_event(c, "{\"type\":\"init\",\"text\":\"7ee4c1d2a3b44f5e96877869a5b4c3d2\","
                   "\"timestamp\":1795469296014}") < 0) return -1;
  if (put_event(c, "{\"type\":\"ping\",\"text\":\"pong\",\"timestamp\":1795469296014}") < 0) return -1;
  for (number = 1; number <= count; number++) {
    snprintf(event, sizeof event,
             "{\"type\":\"stdout\",\"text\":\"line %07ld of the benchmark\",\"timestamp\":1795469296015}", number);
    /* Each in a write of its own and no faster than execd makes them, or a client would find many in one read. */
    wait_until(start + EVENT_INTERVAL * (double)number);
    if (put_event(c, event) < 0 || flush(c) < 0) return -1;
  }
  if (count < 0 && put_event(c, "{\"type\":\"stdout\",\"text\":\"hello\",\"timestamp\":1795469296015}") < 0) return -1;
  /* The clock is read last before the bytes leave, so that a client on this machine can measure their time. */
  clock_gettime(CLOCK_MONOTONIC, &ended);
  snprintf(event, sizeof event,
           "{\"type\":\"execution_complete\",\"execution_time\":2,\"timestamp\":1795469296016,\"monotonic\":%ld.%09ld}",
           (long)ended.tv_sec, ended.tv_nsec);
  if (put_event(c, event) < 0 || flush(c) < 0) return -1;
  /* A sandbox holds the connection for a second after the last event. */
  nanosleep(&tail, NULL);
  if (put(c, "0\r\n\r\n") < 0) return -1;
  return flush(c);
}

static int ends_with(const char *path, const char *route)
{
  size_t length = strlen(path), wanted = strlen(route);
  return length >= wanted && strcmp(path + length - wanted, route) == 0;
}

/* Serves one request; -1 when the connection cannot go on. */
static int serve(struct connection *c, struct request *r, char *body)
{
  char *query = strchr(r->target, '?');
  int is_command, got;
  if (query) *query++ = '\0';
  is_command = ends_with(r->target, "/command");
  got = read_body(c, r, is_command ? body : NULL, COMMAND_SIZE);
  if (!got) return -1;
  __sync_add_and_fetch(&requests, 1);
  if (is_command) return command(c, body);
  if (ends_with(r->target, "/files/download")) return download(c, query);
  if (ends_with(r->target, "/files/upload") || ends_with(r->target, "/ping")) return respond(c, "200 OK", "");
  if (ends_with(r->target, "/stats")) {
    char text[128];
    snprintf(text, sizeof text, "{\"connections\":%ld,\"requests\":%ld,\"ended\":%ld.%09ld}", __sync_add_and_fetch(&connections, 0),
             __sync_add_and_fetch(&requests, 0), (long)ended.tv_sec, ended.tv_nsec);
    return respond(c, "200 OK", text);
  }
  return respond(c, "404 Not Found", "{\"code\":\"UNKNOWN\",\"message\":\"no such route\"}");
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static void *run_connection(void *argument)
{
  struct connection c;
  struct request r;
  char *body = malloc(COMMAND_SIZE);
  int on = 1;
  memset(&c, 0, sizeof c);
  c.fd = (int)(long)argument;
  c.in = malloc(BLOCK_SIZE);
  c.out = malloc(BLOCK_SIZE);
  setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (body && c.in && c.out) {
    while (read_head(&c, &r) && serve(&c, &r, body) == 0 && !r.close) continue;
  }
  close(c.fd);
  free(c.in);
  free(c.out);
  free(body);
  return NULL;
}

/* Whoever started the server holds its standard input; when that ends, so does the server. */
static void *watch_input(void *argument)
{
  char byte;
  ssize_t count;
  (void)argument;
  do {
    count = read(0, &byte, 1);
  } while (count > 0 || (count < 0 && errno == EINTR));
  _exit(0);
}

static void start_thread(void *(*body)(void *), long argument)
{
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  if (pthread_create(&thread, &attributes, body, (void *)argument) != 0) {
    perror("pthread_create");
    exit(1);
  }
  pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv)
{
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  size_t index;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (argc == 3 && strcmp(argv[1], "--port") == 0) {
    address.sin_port = htons((uint16_t)atoi(argv[2]));
  } else if (argc != 1) {
    fprintf(stderr, "usage: %s [--port N]\n", argv[0]);
    return 2;
  }
  for (index = 0; index < sizeof pattern; index++) pattern[index] = LINE[index % 37];
  signal(SIGPIPE, SIG_IGN);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) < 0) {
    perror("cannot listen");
    return 1;
  }
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  start_thread(watch_input, 0);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    __sync_add_and_fetch(&connections, 1);
    start_thread(run_connection, fd);
  }
}
