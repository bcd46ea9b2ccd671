// The load that wrk and h2load cannot make, on one thread: closed loops over TCP and UDP, HTTP with a fixed number of requests per
// connection or at a fixed rate, uploads, WebSocket, SignalR, and connections that do nothing. HTTP bodies have a length or come in chunks.
// Every answer is checked; whatever is not the answer that it had to be is counted as failed. The last line of the output is the result
// as JSON.
//
//   load http --port P --seconds S --path /x [--connections N] [--pipeline N] [--requests N (per connection)] [--rate N] [--upload BYTES]
//   load echo|udp|ws|signalr --port P --seconds S [--path /x] [--connections N] [--size BYTES]
//   load idle --port P --path /x --connections N       prints "open" when all are, and goes on when its input ends

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 256 * 1024,
    HEAD_SIZE = 4096,
    MAX_EVENTS = 1024,
    MAX_WS_SIZE = 125,              // of a frame with the short form of the length
    MAX_SIGNALR_SIZE = 1024,        // so that a message fits where heads do
    SIGNALR_EXTRA = 256,            // of a message besides its text
    CONNECTIONS_PER_ADDRESS = 4000, // far below the number of ephemeral ports
    PATIENCE_S = 10,                // for the answers that are under way when the time is over
    LOSS_S = 1,                     // a datagram without answer for so long is lost
};

typedef enum { MODE_HTTP, MODE_ECHO, MODE_UDP, MODE_WS, MODE_SIGNALR, MODE_IDLE } load_mode;

// What comes next of a body in chunks; a body with a length has none of it.
typedef enum { CHUNK_NONE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_LAST_END } chunk_part;

static load_mode mode;
static int port, connection_count = 64, pipeline = 1, requests_per_connection, seconds = 1;
static size_t size = 64, upload;
static double rate;
static const char *path = "/";

typedef struct {
    int fd, id;
    bool is_open, wants_write, waits_for_end, in_handshake;
    bool in_hub_handshake; // SignalR: the one that follows WebSocket's
    int outstanding;      // answers that are still to come
    int requests;         // sent on this connection
    uint64_t asked;       // when the request under way was, or had to be, sent
    const char *out;      // what is being sent, ...
    size_t out_left;
    size_t upload_left;   // ... and the body after it
    size_t got;           // fixed answers: bytes of the answer so far; SignalR: of a frame's head
    size_t body_left;     // HTTP: bytes of the body, or of its chunk, still to come; SignalR: of the frame
    chunk_part chunk;
    int chunk_digits;     // of its size, so far
    size_t head_length;   // HTTP: the part of a head that has arrived; SignalR: of a message
    char head[HEAD_SIZE];
    unsigned char frame[4]; // SignalR: a frame's head
    char *message, *answer; // fixed exchanges and SignalR: what is sent, and what has to come back
    char *text;             // SignalR: the argument
} connection;

static connection *connections;
static int poller, open_exchanges;
static bool is_ending;
static char *request, *last_request; // HTTP: a batch of requests; the last one of a connection
static size_t request_length, last_request_length, message_length, answer_length;
static char handshake[512];
static const unsigned char ws_key[] = {0x37, 0xfa, 0x21, 0x3d};

static long answered, failed;
static char failure[256];

// Latencies in ns: 128 buckets for each power of two, so an error below 1 %.
static long histogram[64 * 128];

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void record(uint64_t ns) {
    int shift = ns < 128 ? 0 : 63 - __builtin_clzll(ns) - 7;
    histogram[ns < 128 ? ns : (uint64_t)(shift + 1) * 128 + (ns >> shift) - 128]++;
}

static double percentile_us(double percent) {
    long total = 0, seen = 0;
    for (size_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        total += histogram[i];
    }
    for (size_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (seen > 0 && (double)seen >= percent / 100 * (double)total) {
            int shift = i < 128 ? 0 : (int)(i / 128) - 1;
            uint64_t low = i < 128 ? i : (uint64_t)(i % 128 + 128) << shift;
            return ((double)low + (double)((uint64_t)1 << shift) / 2) / 1000;
        }
    }
    return 0;
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

__attribute__((format(printf, 2, 3))) static void fail(int count, const char *format, ...) {
    if (failed == 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(failure, sizeof failure, format, arguments);
        va_end(arguments);
    }
    failed += count;
}

static void interest(connection *c, int operation) {
    struct epoll_event event = {.events = c->wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

static void close_connection(connection *c) {
    close(c->fd);
    c->is_open = false;
    if (c->outstanding > 0 || c->waits_for_end) {
        open_exchanges--;
    }
    c->outstanding = 0;
    c->waits_for_end = false;
}

// The connection is of no more use: its requests have failed.
static void break_connection(connection *c, const char *why) {
    fail(c->outstanding > 0 ? c->outstanding : 1, "%s", why);
    close_connection(c);
}

static bool open_connection(connection *c) {
    c->fd = socket(AF_INET, (mode == MODE_UDP ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        die("socket: %s (open files allowed: see ulimit -n)", strerror(errno));
    }

    int on = 1;
    struct timeval limit = {.tv_sec = PATIENCE_S};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (mode != MODE_UDP) {
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (mode == MODE_IDLE) {
        // One address has not ports enough.
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(c->id / CONNECTIONS_PER_ADDRESS))};
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&own, sizeof own) < 0) {
            die("bind: %s", strerror(errno));
        }
    }
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0) {
        fail(1, "connect: %s", strerror(errno));
        close(c->fd);
        return false;
    }

    c->is_open = true;
    c->wants_write = c->waits_for_end = false;
    c->in_hub_handshake = mode == MODE_SIGNALR;
    c->outstanding = c->requests = 0;
    c->chunk = CHUNK_NONE;
    c->out_left = c->upload_left = c->got = c->body_left = c->head_length = 0;
    if (mode != MODE_IDLE) {
        interest(c, EPOLL_CTL_ADD);
    }
    return true;
}

// Sends what the kernel takes now.
static void send_more(connection *c) {
    static const char body[BUFFER_SIZE];
    while (c->out_left > 0 || c->upload_left > 0) {
        bool in_body = c->out_left == 0;
        size_t length = !in_body ? c->out_left : c->upload_left < sizeof body ? c->upload_left : sizeof body;
        ssize_t sent = send(c->fd, in_body ? body : c->out, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            if (!c->wants_write) {
                c->wants_write = true;
                interest(c, EPOLL_CTL_MOD);
            }
            return;
        }
        if (sent < 0) {
            break_connection(c, strerror(errno));
            return;
        }
        if (in_body) {
            c->upload_left -= (size_t)sent;
        } else {
            c->out += sent;
            c->out_left -= (size_t)sent;
        }
    }
    if (c->wants_write) {
        c->wants_write = false;
        interest(c, EPOLL_CTL_MOD);
    }
}

// Makes the next message, in a masked frame, and what has to come back. Each of SignalR's messages ends with a byte of 0x1e.
static void prepare_hub_message(connection *c) {
    char json[MAX_SIGNALR_SIZE + SIGNALR_EXTRA];
    if (c->in_hub_handshake) {
        strcpy(json, "{\"protocol\":\"json\",\"version\":1}\x1e");
        strcpy(c->answer, "{}");
    } else {
        snprintf(json, sizeof json, "{\"type\":1,\"invocationId\":\"%d\",\"target\":\"Echo\",\"arguments\":[\"%s\"]}\x1e", c->requests,
                 c->text);
        snprintf(c->answer, MAX_SIGNALR_SIZE + SIGNALR_EXTRA, "{\"type\":3,\"invocationId\":\"%d\",\"result\":\"%s\"}", c->requests,
                 c->text);
    }

    size_t length = strlen(json), head = 0;
    c->message[head++] = (char)0x81;
    if (length <= MAX_WS_SIZE) {
        c->message[head++] = (char)(0x80 | length);
    } else {
        c->message[head++] = (char)(0x80 | 126);
        c->message[head++] = (char)(length >> 8);
        c->message[head++] = (char)length;
    }
    memcpy(c->message + head, ws_key, sizeof ws_key);
    head += sizeof ws_key;
    for (size_t i = 0; i < length; i++) {
        c->message[head + i] = (char)(json[i] ^ ws_key[i % 4]);
    }
    c->out = c->message;
    c->out_left = head + length;
}

// due: from when on the answer is waited for
static void ask(connection *c, uint64_t due) {
    c->asked = due;
    open_exchanges++;
    if (c->in_handshake) {
        c->outstanding = 1;
        c->out = handshake;
        c->out_left = strlen(handshake);
    } else if (mode == MODE_HTTP) {
        bool is_last = c->requests + 1 == requests_per_connection;
        c->outstanding = pipeline;
        c->out = is_last ? last_request : request;
        c->out_left = is_last ? last_request_length : request_length;
        c->upload_left = upload;
    } else if (mode == MODE_SIGNALR) {
        c->outstanding = 1;
        prepare_hub_message(c);
    } else {
        c->outstanding = 1;
        c->out = c->message;
        c->out_left = message_length;
    }
    c->requests += c->outstanding;
    send_more(c);
}

// Asks again, on a new connection when this one is gone or used up. At a fixed rate others say when.
static void go_on(connection *c) {
    if (is_ending || rate > 0) {
        return;
    }
    uint64_t now = now_ns();
    if (c->is_open) {
        ask(c, now);
    } else {
        c->in_handshake = mode == MODE_WS || mode == MODE_SIGNALR;
        if (open_connection(c)) {
            ask(c, now);
        }
    }
}

static void on_answer(connection *c) {
    c->outstanding--;
    if (c->in_handshake) {
        c->in_handshake = false;
    } else if (c->in_hub_handshake) {
        c->in_hub_handshake = false;
    } else {
        answered++;
        record(now_ns() - c->asked);
    }
    if (c->outstanding > 0) {
        return;
    }
    if (requests_per_connection > 0 && c->requests == requests_per_connection) {
        // The server ends it, as the last request asked for.
        c->waits_for_end = true;
    } else {
        open_exchanges--;
    }
}

static void expect_chunk(connection *c) {
    c->chunk = CHUNK_SIZE;
    c->chunk_digits = 0;
    c->body_left = 0;
}

// Takes what stands between the data of chunks: a size in hexadecimal, and the ends of lines. There are no extensions and no trailers.
static bool take_chunk_byte(connection *c, char byte) {
    static const char digits[] = "0123456789abcdef";
    const char *digit = byte == 0 ? NULL : strchr(digits, byte);
    if (c->chunk == CHUNK_SIZE && digit != NULL && c->chunk_digits < 8) {
        c->chunk_digits++;
        c->body_left = c->body_left * 16 + (size_t)(digit - digits);
        return true;
    }
    if (byte == '\r' && (c->chunk != CHUNK_SIZE || c->chunk_digits > 0)) {
        return true;
    }
    if (byte != '\n' || (c->chunk == CHUNK_SIZE && c->chunk_digits == 0)) {
        break_connection(c, "what had to be a chunk is none");
        return false;
    }
    if (c->chunk == CHUNK_SIZE) {
        c->chunk = c->body_left > 0 ? CHUNK_DATA : CHUNK_LAST_END;
    } else if (c->chunk == CHUNK_END) {
        expect_chunk(c);
    } else {
        c->chunk = CHUNK_NONE;
        on_answer(c);
    }
    return true;
}

// Takes the head of an answer; what follows it is a body of the length that it tells, or in chunks.
static bool take_head(connection *c, const char *head, size_t length) {
    const char *expected = c->in_handshake ? "HTTP/1.1 101 " : "HTTP/1.1 200 ";
    static const char field[] = "\r\nContent-Length: ";
    static const char chunked[] = "\r\nTransfer-Encoding: chunked\r\n";
    const char *value = memmem(head, length, field, sizeof field - 1);
    bool has_chunks = value == NULL && memmem(head, length, chunked, sizeof chunked - 1) != NULL;
    if (memcmp(head, expected, strlen(expected)) != 0 || (value == NULL && !has_chunks && !c->in_handshake)) {
        char text[200];
        snprintf(text, sizeof text, "unexpected answer: %.*s", (int)strcspn(head, "\r"), head);
        break_connection(c, text);
        return false;
    }
    if (has_chunks) {
        expect_chunk(c);
        return true;
    }
    c->body_left = value == NULL ? 0 : strtoul(value + sizeof field - 1, NULL, 10);
    if (c->body_left == 0) {
        on_answer(c);
    }
    return true;
}

static void on_http(connection *c, char *data, size_t length) {
    while (length > 0) {
        if (c->outstanding == 0) {
            break_connection(c, "more bytes than the answer has");
            return;
        }
        if (c->chunk != CHUNK_NONE && c->chunk != CHUNK_DATA) {
            length--;
            if (!take_chunk_byte(c, *data++)) {
                return;
            }
            continue;
        }
        if (c->body_left > 0) {
            size_t part = length < c->body_left ? length : c->body_left;
            data += part;
            length -= part;
            c->body_left -= part;
            if (c->body_left == 0 && c->chunk == CHUNK_DATA) {
                c->chunk = CHUNK_END;
            } else if (c->body_left == 0) {
                on_answer(c);
            }
            continue;
        }

        // A head that comes in parts is put together in the connection.
        size_t before = c->head_length;
        size_t copied = length < HEAD_SIZE - before ? length : HEAD_SIZE - before;
        char *head = data, *end;
        if (before > 0) {
            memcpy(c->head + before, data, copied);
            head = c->head;
            end = memmem(head, before + copied, "\r\n\r\n", 4);
        } else {
            end = memmem(head, length, "\r\n\r\n", 4);
        }
        if (end == NULL) {
            if (before + length >= HEAD_SIZE) {
                break_connection(c, "a head without end");
                return;
            }
            memcpy(c->head + before, data, length);
            c->head_length += length;
            return;
        }

        size_t head_length = (size_t)(end - head) + 4;
        c->head_length = 0;
        if (!take_head(c, head, head_length)) {
            return;
        }
        data += head_length - before;
        length -= head_length - before;
    }
}

static void on_fixed(connection *c, const char *data, size_t length) {
    if (c->outstanding == 0 || length > answer_length - c->got || memcmp(data, c->answer + c->got, length) != 0) {
        break_connection(c, "another answer than it had to be");
        return;
    }
    c->got += length;
    if (c->got == answer_length) {
        c->got = 0;
        on_answer(c);
    }
}

// Takes what stands before the end of a message. The server may ping at any time.
static bool take_hub_message(connection *c) {
    static const char ping[] = "{\"type\":6}";
    const char *message = c->head;
    size_t length = c->head_length;
    c->head_length = 0;
    if (length == sizeof ping - 1 && memcmp(message, ping, length) == 0) {
        return true;
    }
    if (c->outstanding == 0 || length != strlen(c->answer) || memcmp(message, c->answer, length) != 0) {
        char text[200];
        snprintf(text, sizeof text, "another message than it had to be: %.*s", (int)length, message);
        break_connection(c, text);
        return false;
    }
    on_answer(c);
    return true;
}

// Messages come in frames of text, which they need not have for themselves.
static void on_hub(connection *c, const char *data, size_t length) {
    while (length > 0) {
        if (c->body_left == 0) {
            c->frame[c->got++] = (unsigned char)*data++;
            length--;
            bool is_long = c->got >= 2 && c->frame[1] == 126;
            if ((c->frame[0] & 0x7f) > 1 || (c->got >= 2 && c->frame[1] > 126)) {
                break_connection(c, "another frame than one of text");
                return;
            }
            if (c->got == (is_long ? 4 : 2)) {
                c->body_left = is_long ? (size_t)(c->frame[2] << 8 | c->frame[3]) : c->frame[1];
                c->got = 0;
            }
            continue;
        }

        char byte = *data++;
        length--;
        c->body_left--;
        if (byte == 0x1e) {
            if (!take_hub_message(c)) {
                return;
            }
        } else if (c->head_length == HEAD_SIZE) {
            break_connection(c, "a message without end");
            return;
        } else {
            c->head[c->head_length++] = byte;
        }
    }
}

static void on_readable(connection *c) {
    static char buffer[BUFFER_SIZE];
    ssize_t received = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (received < 0 && errno == EAGAIN) {
        return;
    }
    if (received == 0 && c->waits_for_end) {
        close_connection(c);
    } else if (received <= 0) {
        break_connection(c, received < 0 ? strerror(errno) : "the server closed the connection");
    } else if (mode == MODE_HTTP || c->in_handshake) {
        on_http(c, buffer, (size_t)received);
    } else if (mode == MODE_SIGNALR) {
        on_hub(c, buffer, (size_t)received);
    } else {
        on_fixed(c, buffer, (size_t)received);
    }
    if (!c->is_open || (c->outstanding == 0 && !c->waits_for_end)) {
        go_on(c);
    }
}

// A datagram may get lost; a loop that waited for it would stand still.
static void look_for_losses(void) {
    uint64_t now = now_ns();
    for (int i = 0; i < connection_count; i++) {
        connection *c = &connections[i];
        if (c->outstanding > 0 && now - c->asked > LOSS_S * 1000000000ull) {
            break_connection(c, "a datagram without answer");
            go_on(c);
        }
    }
}

static void run(void) {
    for (int i = 0; i < connection_count; i++) {
        connections[i].in_handshake = mode == MODE_WS || mode == MODE_SIGNALR;
        if (open_connection(&connections[i]) && rate == 0) {
            ask(&connections[i], now_ns());
        }
    }

    struct epoll_event events[MAX_EVENTS];
    uint64_t start = now_ns(), deadline = start + (uint64_t)seconds * 1000000000u, last_look = start, now;
    long due = 0, to_send = (long)(rate * seconds); // at a fixed rate: how many requests were sent, and will be
    int next = 0;
    while (now = now_ns(), now < deadline || ((open_exchanges > 0 || due < to_send) && now < deadline + PATIENCE_S * 1000000000ull)) {
        is_ending = now >= deadline;
        if (due < to_send) {
            // Without a free connection a request waits, and its latency counts from when it was due.
            for (int tried = 0; tried < connection_count && due < to_send && start + (uint64_t)((double)due * 1e9 / rate) <= now; tried++) {
                connection *c = &connections[next];
                next = (next + 1) % connection_count;
                if (c->outstanding == 0 && (c->is_open || open_connection(c))) {
                    ask(c, start + (uint64_t)((double)due++ * 1e9 / rate));
                }
            }
        }
        if (mode == MODE_UDP && now - last_look > 100000000) {
            look_for_losses();
            last_look = now;
        }

        // A fixed rate needs finer times than epoll_wait has; this processor has nothing else to do.
        int count = epoll_wait(poller, events, MAX_EVENTS, rate > 0 ? 0 : 10);
        for (int i = 0; i < count; i++) {
            connection *c = events[i].data.ptr;
            if (c->is_open && (events[i].events & EPOLLOUT) != 0) {
                send_more(c);
            }
            if (c->is_open && (events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
                on_readable(c);
            }
        }
    }

    if (open_exchanges > 0) {
        fail(open_exchanges, "no answer, or no end of the connection, within %d s", PATIENCE_S);
    }
    if (due < to_send) {
        fail((int)(to_send - due), "the server does not keep up with %.0f requests/s", rate);
    }
    printf("{\"seconds\": %.6f, ", (double)(now - start) / 1e9);
}

// Sequentially and blocking: it is not about speed.
static void hold_idle(void) {
    uint64_t start = now_ns();
    for (int i = 0; i < connection_count; i++) {
        connection *c = &connections[i];
        if (!open_connection(c)) {
            continue;
        }
        uint64_t asked = now_ns();
        if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) {
            fail(1, "send: %s", strerror(errno));
            continue;
        }
        ssize_t received;
        c->outstanding = 1;
        c->asked = asked;
        open_exchanges++;
        char buffer[HEAD_SIZE];
        while (c->outstanding > 0) {
            received = recv(c->fd, buffer, sizeof buffer, 0);
            if (received <= 0) {
                break_connection(c, received < 0 ? strerror(errno) : "the server closed the connection");
            } else {
                on_http(c, buffer, (size_t)received);
            }
        }
    }
    printf("open\n");
    fflush(stdout);
    while (getchar() != EOF) {
    }

    for (int i = 0; i < connection_count; i++) {
        char byte;
        if (connections[i].is_open && (recv(connections[i].fd, &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)) {
            fail(1, "an idle connection did not last");
        }
    }
    printf("{\"seconds\": %.6f, ", (double)(now_ns() - start) / 1e9);
}

static void prepare_http(void) {
    char one[1024], last[1024];
    if (upload > 0) {
        snprintf(one, sizeof one, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n\r\n", path, upload);
    } else {
        snprintf(one, sizeof one, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    }
    snprintf(last, sizeof last, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
    request_length = strlen(one) * (size_t)pipeline;
    request = calloc(1, request_length + 1);
    for (int i = 0; i < pipeline; i++) {
        strcat(request, one);
    }
    last_request = strdup(last);
    last_request_length = strlen(last);
}

static void prepare_messages(void) {
    size_t head = mode == MODE_WS ? 6 : 0, answer_head = mode == MODE_WS ? 2 : 0;
    message_length = head + size;
    answer_length = answer_head + size;
    for (int i = 0; i < connection_count; i++) {
        connection *c = &connections[i];
        c->message = malloc(message_length);
        c->answer = malloc(answer_length);

        // No two connections send the same, so that bytes on another's connection are noticed.
        for (size_t j = 0; j < size; j++) {
            c->answer[answer_head + j] = c->message[head + j] = (char)(j < 4 ? (size_t)i >> (8 * j) : j * 31 + (size_t)i);
        }
        if (mode == MODE_WS) {
            memcpy(c->answer, (char[]){(char)0x82, (char)size}, 2);
            memcpy(c->message, (char[]){(char)0x82, (char)(0x80 | size)}, 2);
            memcpy(c->message + 2, ws_key, sizeof ws_key);
            for (size_t j = 0; j < size; j++) {
                c->message[head + j] ^= (char)ws_key[j % 4];
            }
        }
    }
}

static void prepare_hub_messages(void) {
    for (int i = 0; i < connection_count; i++) {
        connection *c = &connections[i];
        c->message = malloc(MAX_SIGNALR_SIZE + SIGNALR_EXTRA);
        c->answer = malloc(MAX_SIGNALR_SIZE + SIGNALR_EXTRA);
        c->text = calloc(1, size + 1);

        // As above, in letters.
        for (size_t j = 0; j < size; j++) {
            c->text[j] = (char)('a' + (j < 4 ? (size_t)i >> (4 * j) & 15 : (j * 31 + (size_t)i) % 26));
        }
    }
}

static void prepare_handshake(void) {
    snprintf(handshake, sizeof handshake,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
             path);
}

int main(int argc, char **argv) {
    static const char *const modes[] = {"http", "echo", "udp", "ws", "signalr", "idle"};
    int found = -1;
    for (int i = 0; argc > 1 && i < (int)(sizeof modes / sizeof *modes); i++) {
        found = strcmp(argv[1], modes[i]) == 0 ? i : found;
    }
    if (found < 0 || argc % 2 != 0) {
        die("usage: load http|echo|udp|ws|signalr|idle --port P ...; see the source");
    }
    mode = (load_mode)found;
    for (int i = 2; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--port") == 0) port = atoi(value);
        else if (strcmp(name, "--seconds") == 0) seconds = atoi(value);
        else if (strcmp(name, "--connections") == 0) connection_count = atoi(value);
        else if (strcmp(name, "--pipeline") == 0) pipeline = atoi(value);
        else if (strcmp(name, "--requests") == 0) requests_per_connection = atoi(value);
        else if (strcmp(name, "--size") == 0) size = strtoul(value, NULL, 10);
        else if (strcmp(name, "--upload") == 0) upload = strtoul(value, NULL, 10);
        else if (strcmp(name, "--rate") == 0) rate = atof(value);
        else if (strcmp(name, "--path") == 0) path = value;
        else die("unknown option %s", name);
    }
    if (port <= 0 || connection_count <= 0 || pipeline <= 0 || size < 4 || strlen(path) > 256 || (mode == MODE_WS && size > MAX_WS_SIZE) ||
        (mode == MODE_SIGNALR && size > MAX_SIGNALR_SIZE) ||
        (requests_per_connection > 0 && (pipeline > 1 || rate > 0))) {
        die("a value is not permitted; see the source");
    }

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)connection_count + 16) {
        die("%d connections need a higher limit of open files than %lu: see ulimit -Hn", connection_count, (unsigned long)files.rlim_max);
    }

    connections = calloc((size_t)connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || poller < 0) {
        die("no memory");
    }
    for (int i = 0; i < connection_count; i++) {
        connections[i].id = i;
    }
    prepare_http();
    prepare_handshake();
    mode == MODE_SIGNALR ? prepare_hub_messages() : prepare_messages();
    mode == MODE_IDLE ? hold_idle() : run();

    printf("\"requests\": %ld, \"failed\": %ld, \"failure\": ", answered, failed);
    if (failed == 0) {
        printf("null");
    } else {
        putchar('"');
        for (const char *at = failure; *at != 0; at++) {
            putchar(*at == '"' || *at == '\\' || (unsigned char)*at < ' ' ? '?' : *at);
        }
        putchar('"');
    }
    printf(", \"p50_us\": %.3f, \"p99_us\": %.3f}\n", percentile_us(50), percentile_us(99));
    return 0;
}
