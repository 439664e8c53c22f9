/* limit: the physical limit of what the gateway does, a C loop over send(2), to be compared with it in the same run.
 *
 * Accepts N WebSocket clients (sink.c), then writes records of SIZE bytes (frame header included) at RATE a second, BATCH of them a wake-up:
 * in each batch every client gets the records that are its own in one send, as the gateway joins what has come in. Who
 * gets which record is said by --every and --take as in sink.c.
 *
 * Two lines of JSON on stdout: `listening`, and at the end deliveries, CPU seconds, and CPU a delivery in us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char ACCEPTED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static struct {
    int port, clients, batch, size;
    int64_t every, take;
    double rate, seconds;
} opt = {.clients = 1, .batch = 1, .size = 330, .every = 1, .take = 1, .rate = 100, .seconds = 5};

static void fail(const char *what) {
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_until(double t) {
    struct timespec at = {.tv_sec = (time_t)t, .tv_nsec = (long)((t - (time_t)t) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {}
}

static double cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int listen_on(int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096)) fail("listen");
    return listener;
}

static int accept_client(int listener) {
    char request[16384];
    int on = 1, low = 16384, fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof low); /* as the gateway has it */
    for (size_t have = 0; have < 4 || memcmp(request + have - 4, "\r\n\r\n", 4);) {
        ssize_t got = recv(fd, request + have, sizeof request - have, 0);
        if (got <= 0) fail("request");
        have += got;
    }
    if (send(fd, ACCEPTED, sizeof ACCEPTED - 1, MSG_NOSIGNAL) < 0) fail("answer");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* One finished frame a record, all alike but for the time. */
static void make_frame(char *frame, int size) {
    int head = size - 2 < 126 ? 2 : 4, payload = size - head;
    frame[0] = (char)0x81;
    frame[1] = (char)(head == 2 ? payload : 126);
    if (head == 4) frame[2] = (char)(payload >> 8), frame[3] = (char)payload;
    memset(frame + head, 'x', payload);
}

static void stamp(char *frames, int count, int size) {
    char text[64];
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int head = size - 2 < 126 ? 2 : 4;
    int length = snprintf(text, sizeof text, "{\"n\":0,\"ns\":%lld,", t.tv_sec * 1000000000LL + t.tv_nsec);
    for (int k = 0; k < count; k++) memcpy(frames + (size_t)k * size + head, text, length);
}

static void write_all(int fd, const char *data, size_t length) {
    for (size_t at = 0; at < length;) {
        ssize_t sent = send(fd, data + at, length - at, MSG_NOSIGNAL);
        if (sent > 0) at += sent;
        else if (errno == EAGAIN) usleep(50);
        else fail("send");
    }
}

static void options(int count, char **words) {
    static const struct option known[] = {{"port", 1, 0, 'p'}, {"clients", 1, 0, 'c'}, {"batch", 1, 0, 'b'}, {"size", 1, 0, 'z'},
                                          {"every", 1, 0, 'e'}, {"take", 1, 0, 't'}, {"rate", 1, 0, 'r'}, {"seconds", 1, 0, 's'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(count, words, "", known, NULL)) != -1;) {
        if (o == 'p') opt.port = atoi(optarg);
        else if (o == 'c') opt.clients = atoi(optarg);
        else if (o == 'b') opt.batch = atoi(optarg);
        else if (o == 'z') opt.size = atoi(optarg);
        else if (o == 'e') opt.every = atoll(optarg);
        else if (o == 't') opt.take = atoll(optarg);
        else if (o == 'r') opt.rate = atof(optarg);
        else if (o == 's') opt.seconds = atof(optarg);
        else exit(2);
    }
    if (!opt.port || opt.clients < 1 || opt.batch < 1 || opt.size < 64 || opt.size > 65000 || opt.rate <= 0) {
        fprintf(stderr, "usage: limit --port P [--clients N --rate R --batch B --size BYTES --every M --take W --seconds S]\n");
        exit(2);
    }
}

int main(int count, char **words) {
    options(count, words);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_on(opt.port), *fds = calloc(opt.clients, sizeof *fds), *owed = calloc(opt.clients, sizeof *owed);
    int *touched = calloc(opt.clients, sizeof *touched);
    char *frames = malloc((size_t)opt.batch * opt.size);
    if (!fds || !owed || !touched || !frames) fail("memory");
    printf("{\"event\":\"listening\"}\n");
    fflush(stdout);
    for (int k = 0; k < opt.batch; k++) make_frame(frames + (size_t)k * opt.size, opt.size);
    for (int i = 0; i < opt.clients; i++) fds[i] = accept_client(listener);
    sleep(1); /* everybody has read its answer */

    uint64_t deliveries = 0, sends = 0;
    double began = now(), used = cpu();
    int64_t n = 0;
    for (int64_t wake = 1; now() - began < opt.seconds; wake++) {
        int touches = 0;
        sleep_until(began + wake * opt.batch / opt.rate);
        stamp(frames, opt.batch, opt.size);
        for (int k = 0; k < opt.batch; k++, n++)
            for (int64_t j = 0; j < opt.take; j++) /* client i is due record n where (n - i) mod EVERY < TAKE */
                for (int64_t i = ((n - j) % opt.every + opt.every) % opt.every; i < opt.clients; i += opt.every)
                    if (!owed[i]++) touched[touches++] = (int)i;
        for (int k = 0; k < touches; k++) {
            int i = touched[k];
            write_all(fds[i], frames, (size_t)owed[i] * opt.size);
            deliveries += owed[i];
            sends++;
            owed[i] = 0;
        }
    }
    double seconds = now() - began;
    used = cpu() - used;
    printf("{\"event\":\"end\",\"seconds\":%.3f,\"clients\":%d,\"deliveries\":%lu,\"sends\":%lu,\"cpu\":%.4f,\"cpu_us\":%.4f,\"records\":%lld}\n", seconds, opt.clients,
           deliveries, sends, used, 1e6 * used / deliveries, (long long)n);
    return 0;
}
