/* sink: many WebSocket clients in one process, which check everything that they are sent.
 *
 * Each client opens one connection, answers PINGs, and expects the records that are its own, each once and in order. A
 * record bears `"n":<number>,"ns":<time of sending>` (load.py, limit.c). Client i is due record n where (n - i) mod EVERY < TAKE:
 *     everybody gets everything   --every 1 --take 1
 *     one client a record         --every N --take 1
 *     100 of 1,000 keys each      --every 1000 --take 100
 * With --records R the run ends as soon as every client that stays has all of its records below R; without it, or where
 * something is missing, --seconds after all are connected. The last --churners clients come and go, --churn of them a second:
 * half of them leave with a close frame, half without. What they get is checked for continuity within each of their lives.
 *
 * Two lines of JSON on stdout: `up` once everybody is connected, `end` with the result. Exit 1 where clients were refused.
 * Latencies are of every record of each --sample'th client, in ms, to 0.01.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { READ_MAX = 256 << 10, FRAME_MAX = 2 << 20, BUCKETS = 200000, BUCKET_NS = 10000, IN_FLIGHT = 64, EVENTS = 512 };
static const double LINGER = 0.5; /* seconds after the last record was had, in which a repeat would show */

typedef enum { WAITING, CONNECTING, SHAKING, OPEN, CLOSING, LOST } State;

typedef struct {
    int fd;
    State state;
    int64_t next; /* the record number due next; -1: any of its own (a life that began in the middle) */
    uint8_t *carry;
    uint32_t carried; /* bytes of a frame that is not whole yet */
    double began;     /* of the connection attempt; once CLOSING: of that */
    uint8_t done;
} Client;

static struct {
    int port, clients, first, sources, sample, churners;
    int64_t records, every, take;
    double seconds, churn;
    const char *path;
} opt = {.clients = 1, .sources = 1, .sample = 1, .every = 1, .take = 1, .seconds = 10};

static Client *all;
static char **targets;
static int epoll, *queue, queued_from, queued, in_flight, up, stay, complete;
static uint8_t buffer[FRAME_MAX + READ_MAX];
static uint64_t messages, records, bytes, record_bytes, reads, missing, repeated, pings, refused, lost, lives, closes, latencies, histogram[BUCKETS + 1];
static double latency_max, shakes_total, shake_max;
static char refusal[128];
static volatile sig_atomic_t stopped;

static void stop(int number) { (void)number; stopped = 1; }

static void fail(const char *what) {
    fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int64_t wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The first record number from n on that is due to client i. */
static int64_t due(int64_t n, int64_t i) {
    int64_t behind = ((n - i) % opt.every + opt.every) % opt.every;
    return behind < opt.take ? n : n + opt.every - behind;
}

static void watch(int i, int operation, uint32_t events) {
    struct epoll_event e = {.events = events, .data.u32 = (uint32_t)i};
    if (epoll_ctl(epoll, operation, all[i].fd, &e)) fail("epoll_ctl");
}

static void enqueue(int i) {
    all[i].state = WAITING;
    queue[(queued_from + queued++) % opt.clients] = i;
}

static void forget(int i) {
    Client *c = &all[i];
    close(c->fd);
    free(c->carry);
    c->carry = NULL;
    c->carried = 0;
    c->fd = -1;
}

static void open_connection(int i) {
    Client *c = &all[i];
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (opt.sources > 1) { /* a source address has some 28,000 ports; 127.0.0.0/8 has many addresses */
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + i % opt.sources)};
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (void *)&from, sizeof from)) fail("bind");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    c->state = CONNECTING;
    c->began = now();
    c->next = i < stay ? due(0, opt.first + i) : -1;
    in_flight++;
    watch(i, EPOLL_CTL_ADD, EPOLLOUT);
}

static void send_request(int i) {
    Client *c = &all[i];
    static char request[16384], target[12288];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        errno = error;
        fail("connect");
    }
    const char *mark = targets ? NULL : strstr(opt.path, "%d");
    if (targets) snprintf(target, sizeof target, "%s", targets[opt.first + i]);
    else if (mark) snprintf(target, sizeof target, "%.*s%d%s", (int)(mark - opt.path), opt.path, opt.first + i, mark + 2);
    else snprintf(target, sizeof target, "%s", opt.path);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          target, opt.port);
    if (send(c->fd, request, length, MSG_NOSIGNAL) != length) fail("request");
    c->state = SHAKING;
    watch(i, EPOLL_CTL_MOD, EPOLLIN);
}

/* A client's frame, masked with zeros (RFC 6455 section 5.3). */
static void answer(Client *c, int opcode, const uint8_t *payload, int length) {
    uint8_t frame[6 + 125] = {0x80 | opcode, 0x80 | length};
    memcpy(frame + 6, payload, length);
    if (send(c->fd, frame, 6 + length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET) fail("send");
}

/* Where the record's number stands. Frames of one topic are alike, so it is looked for where it stood the last time. */
static const uint8_t *find_number(const uint8_t *p, size_t length) {
    static size_t hint;
    if (length >= hint + 8)
        for (size_t at = hint > 3 ? hint - 3 : 0; at <= hint + 3; at++)
            if (!memcmp(p + at, "\"n\":", 4)) {
                hint = at;
                return p + at + 4;
            }
    const uint8_t *found = memmem(p, length, "\"n\":", 4);
    if (!found) return NULL;
    hint = found - p;
    return found + 4;
}

static int64_t number(const uint8_t **p, const uint8_t *end) {
    int64_t value = 0;
    while (*p < end && (**p < '0' || **p > '9')) ++*p;
    while (*p < end && **p >= '0' && **p <= '9') value = value * 10 + *(*p)++ - '0';
    return value;
}

static void check(int i, int64_t n) {
    Client *c = &all[i];
    if (c->next < 0) c->next = due(n, opt.first + i);
    if (n < c->next) {
        repeated++;
        return;
    }
    while (c->next < n) { /* also told where n is none of its own: nothing else reaches n */
        missing++;
        c->next = due(c->next + 1, opt.first + i);
    }
    if (c->next > n) repeated++;
    else c->next = due(n + 1, opt.first + i);
    if (!c->done && i < stay && c->next >= opt.records) c->done = 1, complete++;
}

/* Whether it is a record; if not, it is CONNECTED, POSITION or the like. */
static int message(int i, const uint8_t *p, size_t length, int64_t wall) {
    const uint8_t *end = p + length;
    messages++;
    const uint8_t *at = find_number(p, length);
    if (!at) return 0;
    records++;
    int64_t n = number(&at, end);
    if (opt.records) check(i, n);
    if (i % opt.sample || end - at < 6 || memcmp(at, ",\"ns\":", 6)) return 1;
    int64_t late = wall - number(&at, end);
    if (late < 0) late = 0;
    if (late / 1e6 > latency_max) latency_max = late / 1e6;
    histogram[late / BUCKET_NS < BUCKETS ? late / BUCKET_NS : BUCKETS]++;
    latencies++;
    return 1;
}

static void lose(int i, const char *why) {
    if (lost++ < 10) fprintf(stderr, "sink: client %d: %s\n", opt.first + i, why);
    forget(i);
    all[i].state = LOST;
}

/* The whole frames at p; returns how many bytes they took. */
static size_t frames(int i, const uint8_t *p, size_t length, int64_t wall) {
    Client *c = &all[i];
    size_t at = 0;
    while (length - at >= 2) {
        const uint8_t *f = p + at;
        size_t head = 2, size = f[1] & 127;
        if (size == 126) head = 4;
        if (size == 127) head = 10;
        if (length - at < head) break;
        if (head > 2) {
            size = 0;
            for (size_t k = 2; k < head; k++) size = size << 8 | f[k];
        }
        if (size > FRAME_MAX - 16) {
            errno = EMSGSIZE;
            fail("frame");
        }
        if (length - at < head + size) break;
        int opcode = f[0] & 15;
        if (opcode < 3 && message(i, f + head, size, wall)) record_bytes += head + size;
        if (opcode == 9) pings++, answer(c, 10, f + head, size);
        if (opcode == 8 && c->state == OPEN) {
            closes++;
            fprintf(stderr, "sink: client %d: closed with %d\n", opt.first + i, size < 2 ? 1005 : f[head] << 8 | f[head + 1]);
            answer(c, 8, f + head, size);
        }
        at += head + size;
    }
    return at;
}

/* The answer to the request; returns how many bytes it took, 0 while it is not whole. */
static size_t shake(int i, const uint8_t *p, size_t length) {
    Client *c = &all[i];
    const uint8_t *end = memmem(p, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (!memmem(p, end - p, "HTTP/1.1 101 ", 13) || !memmem(p, end - p, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)) {
        if (!refused++) snprintf(refusal, sizeof refusal, "%.*s", (int)strcspn((const char *)p, "\r"), (const char *)p);
        forget(i);
        in_flight--;
        c->state = LOST;
        return 0;
    }
    double took = now() - c->began;
    shakes_total += took;
    if (took > shake_max) shake_max = took;
    in_flight--;
    lives++;
    up++;
    c->state = OPEN;
    if (opt.records && !c->done && i < stay && c->next >= opt.records) c->done = 1, complete++;
    return end + 4 - p;
}

static void readable(int i) {
    Client *c = &all[i];
    if (c->carried) memcpy(buffer, c->carry, c->carried);
    ssize_t got = recv(c->fd, buffer + c->carried, READ_MAX, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (c->state == CLOSING) {
            forget(i);
            enqueue(i);
        } else {
            if (c->state == SHAKING) in_flight--;
            lose(i, got ? strerror(errno) : "the server ended the connection");
        }
        return;
    }
    size_t length = c->carried + got, at = 0;
    bytes += got;
    if (c->state == SHAKING) {
        at = shake(i, buffer, length);
        if (c->state == LOST) return;
    }
    if (c->state >= OPEN) {
        uint64_t before = records;
        at += frames(i, buffer + at, length - at, wall_ns());
        reads += records > before;
    }
    if (at == length) {
        free(c->carry);
        c->carry = NULL;
    } else {
        uint8_t *kept = realloc(c->carry, length - at);
        if (!kept) fail("realloc");
        memcpy(kept, buffer + at, length - at);
        c->carry = kept;
    }
    c->carried = length - at;
}

/* The next of those who come and go leaves, and comes back as soon as the old connection is gone. */
static void churn_one(void) {
    static int turn;
    int i = stay + turn++ % opt.churners;
    Client *c = &all[i];
    if (c->state != OPEN) return;
    up--;
    if (turn / opt.churners % 2 == turn % 2) {
        c->state = CLOSING;
        c->began = now();
        answer(c, 8, (const uint8_t *)"\x03\xe8", 2);
    } else {
        forget(i);
        enqueue(i);
    }
}

static double percentile(double share) {
    uint64_t rank = share * latencies, sum = 0;
    for (int b = 0; b <= BUCKETS; b++)
        if ((sum += histogram[b]) > rank) return (b + 1) * (BUCKET_NS / 1e6);
    return latency_max;
}

static void load_targets(const char *name) {
    FILE *file = fopen(name, "r");
    if (!file) fail(name);
    int wanted = opt.first + opt.clients, have = 0;
    targets = calloc(wanted, sizeof *targets);
    for (size_t room = 0; have < wanted; have++) {
        ssize_t length = getline(&targets[have], &room, file);
        if (length < 1) break;
        targets[have][strcspn(targets[have], "\r\n")] = 0;
        room = 0;
    }
    fclose(file);
    if (have < wanted) {
        fprintf(stderr, "sink: %s has %d lines, %d clients need one each\n", name, have, wanted);
        exit(2);
    }
}

static void options(int count, char **words) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"clients", 1, 0, 'c'}, {"path", 1, 0, 'u'},    {"seconds", 1, 0, 's'}, {"records", 1, 0, 'r'},
        {"every", 1, 0, 'e'},   {"take", 1, 0, 't'},    {"sample", 1, 0, 'm'},  {"churn", 1, 0, 'x'},   {"churners", 1, 0, 'y'},
        {"sources", 1, 0, 'o'}, {"first", 1, 0, 'f'},   {0, 0, 0, 0}};
    for (int o; (o = getopt_long(count, words, "", known, NULL)) != -1;) {
        if (o == 'p') opt.port = atoi(optarg);
        else if (o == 'c') opt.clients = atoi(optarg);
        else if (o == 'u') opt.path = optarg;
        else if (o == 's') opt.seconds = atof(optarg);
        else if (o == 'r') opt.records = atoll(optarg);
        else if (o == 'e') opt.every = atoll(optarg);
        else if (o == 't') opt.take = atoll(optarg);
        else if (o == 'm') opt.sample = atoi(optarg);
        else if (o == 'x') opt.churn = atof(optarg);
        else if (o == 'y') opt.churners = atoi(optarg);
        else if (o == 'o') opt.sources = atoi(optarg);
        else if (o == 'f') opt.first = atoi(optarg);
        else exit(2);
    }
    if (!opt.port || !opt.path || opt.clients < 1 || opt.every < 1 || opt.take < 1 || opt.sample < 1 || opt.churners > opt.clients) {
        fprintf(stderr, "usage: sink --port P --path TARGET|@FILE [--clients N --first I --sources K --seconds S --records R\n"
                        "            --every M --take W --sample K --churn X --churners C]\n"
                        "TARGET: %%d becomes the client's number; FILE: one request target a line\n");
        exit(2);
    }
    if (opt.path[0] == '@') load_targets(opt.path + 1);
}

static void report(double seconds) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    int short_of = 0;
    if (opt.records)
        for (int i = 0; i < stay; i++)
            if (!all[i].done) {
                short_of++;
                for (int64_t n = all[i].next; n < opt.records; n = due(n + 1, opt.first + i)) missing++;
            }
    printf("{\"event\":\"end\",\"seconds\":%.3f,\"connected\":%d,\"lives\":%lu,\"messages\":%lu,\"records\":%lu,\"bytes\":%lu,\"record_bytes\":%lu,\"reads\":%lu,"
           "\"missing\":%lu,\"repeated\":%lu,\"incomplete\":%d,\"lost\":%lu,\"closes\":%lu,\"refused\":%lu,\"refusal\":\"%s\",\"pings\":%lu,"
           "\"handshake_mean_ms\":%.3f,\"handshake_max_ms\":%.3f,"
           "\"latencies\":%lu,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f,\"cpu\":%.3f}\n",
           seconds, up, lives, messages, records, bytes, record_bytes, reads, missing, repeated, short_of, lost, closes, refused, refusal, pings,
           lives ? 1e3 * shakes_total / lives : 0, 1e3 * shake_max, latencies, percentile(.5), percentile(.9), percentile(.99), percentile(.999), latency_max,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

int main(int count, char **words) {
    options(count, words);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    epoll = epoll_create1(0);
    all = calloc(opt.clients, sizeof *all);
    queue = calloc(opt.clients, sizeof *queue);
    stay = opt.clients - opt.churners;
    for (int i = 0; i < opt.clients; i++) enqueue(i);

    struct epoll_event events[EVENTS];
    double began = now(), start = 0, had_all = 0, churned = 0;
    while (!stopped) {
        double t = now();
        while (queued && in_flight < IN_FLIGHT) {
            int i = queue[queued_from];
            queued_from = (queued_from + 1) % opt.clients;
            queued--;
            open_connection(i);
        }
        if (!start && up + (int)(lost + refused) >= opt.clients) {
            start = churned = t;
            printf("{\"event\":\"up\",\"clients\":%d,\"seconds\":%.3f,\"refused\":%lu}\n", up, t - began, refused);
            fflush(stdout);
            if (refused || lost) break;
        }
        if (!start && t - began > 120) {
            fprintf(stderr, "sink: %d of %d clients connected within 120 s\n", up, opt.clients);
            break;
        }
        if (start && opt.churn)
            for (; churned + 1 / opt.churn < t; churned += 1 / opt.churn) churn_one();
        if (start && opt.records && complete == stay && !had_all) had_all = t;
        if (start && (t - start > opt.seconds || (had_all && t - had_all > LINGER) || lost >= (uint64_t)opt.clients)) break;
        int ready = epoll_wait(epoll, events, EVENTS, opt.churn ? 5 : 50);
        for (int k = 0; k < ready; k++) {
            int i = events[k].data.u32;
            if (all[i].fd < 0) continue;
            if (all[i].state == CONNECTING) send_request(i);
            else readable(i);
        }
    }
    report((had_all ? had_all : now()) - start);
    return refused != 0;
}
