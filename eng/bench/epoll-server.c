// A plain single-threaded epoll server: level-triggered, one recv and one send per request, no timers, no limits, no error handling
// beyond closing. What it does per second of CPU is what the method itself allows; a server that does more for its users comes close
// to that at best.
//
//   epoll-server --echo PORT | --http PORT | --native-http PORT | --udp-echo PORT
//
// --http answers with the bytes of Kestrel's answer to the sample's /plaintext, --native-http with those of the sample's native server.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_SIZE = 64 * 1024, HEAD_SIZE = 4096, MAX_EVENTS = 512, UDP_BATCH = 32, MAX_DATAGRAM = 2048 };

typedef struct {
    int fd;
    size_t head_length; // a request whose end has not arrived
    char *head;
    size_t pending_length, pending_sent; // output that the kernel had no room for
    char *pending;
    bool last; // ends when its output is sent
} connection;

static int poller;
static char response[512], last_response[512]; // to a request with "Connection: close"
static size_t response_length, last_response_length;
static bool has_date;
static time_t date_of_response;

static void die(const char *what) {
    perror(what);
    exit(1);
}

// As Kestrel does, once a second.
static void update_date(void) {
    static char date[32];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (!has_date || now.tv_sec == date_of_response) {
        return;
    }
    date_of_response = now.tv_sec;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now.tv_sec));
    const char *format = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n%sContent-Type: text/plain\r\nDate: %s\r\nServer: Kestrel\r\n\r\nHello, World!";
    response_length = (size_t)snprintf(response, sizeof response, format, "", date);
    last_response_length = (size_t)snprintf(last_response, sizeof last_response, format, "Connection: close\r\n", date);
}

static void interest(connection *c, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void close_connection(connection *c) {
    close(c->fd);
    free(c->head);
    free(c->pending);
    free(c);
}

// False when the connection is gone.
static bool send_all(connection *c, const char *data, size_t length) {
    ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length) {
        return true;
    }
    if (sent < 0 && errno != EAGAIN) {
        close_connection(c);
        return false;
    }

    // While output waits, no input is taken.
    size_t done = sent < 0 ? 0 : (size_t)sent;
    c->pending_length = length - done;
    c->pending_sent = 0;
    c->pending = realloc(c->pending, c->pending_length);
    memcpy(c->pending, data + done, c->pending_length);
    interest(c, EPOLLOUT, EPOLL_CTL_MOD);
    return true;
}

static void on_writable(connection *c) {
    ssize_t sent = send(c->fd, c->pending + c->pending_sent, c->pending_length - c->pending_sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        close_connection(c);
        return;
    }
    c->pending_sent += sent < 0 ? 0 : (size_t)sent;
    if (c->pending_sent == c->pending_length) {
        if (c->last) {
            close_connection(c);
            return;
        }
        c->pending_length = 0;
        interest(c, EPOLLIN, EPOLL_CTL_MOD);
    }
}

// Where the load generator has it: the last header of all.
static bool asks_to_close(const char *head, const char *end) {
    static const char header[] = "\r\nConnection: close";
    size_t length = sizeof header - 1;
    return has_date && (size_t)(end - head) >= length && memcmp(end - length, header, length) == 0;
}

// Answers every request in the input in one send.
static void answer(connection *c, char *input, size_t length) {
    static char output[INPUT_SIZE * 8];
    size_t output_length = 0;
    char *at = input, *end = input + length, *next;
    while (!c->last && (next = memmem(at, (size_t)(end - at), "\r\n\r\n", 4)) != NULL) {
        if (output_length + sizeof response > sizeof output) {
            // Requests of less than 20 bytes each: none of the load generators sends that.
            close_connection(c);
            return;
        }
        c->last = asks_to_close(at, next);
        size_t answer_length = c->last ? last_response_length : response_length;
        memcpy(output + output_length, c->last ? last_response : response, answer_length);
        output_length += answer_length;
        at = next + 4;
    }

    c->head_length = (size_t)(end - at);
    if (c->head_length > HEAD_SIZE) {
        close_connection(c);
        return;
    }
    if (c->head_length > 0) {
        c->head = c->head != NULL ? c->head : malloc(HEAD_SIZE);
        memcpy(c->head, at, c->head_length);
    }
    if (output_length > 0 && send_all(c, output, output_length) && c->last && c->pending_length == 0) {
        close_connection(c);
    }
}

static void on_readable(connection *c, bool echo) {
    static char input[HEAD_SIZE + INPUT_SIZE];
    if (c->head_length > 0) {
        memcpy(input, c->head, c->head_length);
    }
    ssize_t received = recv(c->fd, input + c->head_length, INPUT_SIZE, 0);
    if (received <= 0) {
        if (received == 0 || errno != EAGAIN) {
            close_connection(c);
        }
    } else if (echo) {
        send_all(c, input, (size_t)received);
    } else {
        answer(c, input, c->head_length + (size_t)received);
    }
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        interest(c, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void echo_datagrams(int fd) {
    static char data[UDP_BATCH][MAX_DATAGRAM];
    static struct sockaddr_storage peers[UDP_BATCH];
    struct iovec buffers[UDP_BATCH];
    struct mmsghdr messages[UDP_BATCH];
    for (int i = 0; i < UDP_BATCH; i++) {
        buffers[i] = (struct iovec){data[i], MAX_DATAGRAM};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &buffers[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(fd, messages, UDP_BATCH, 0, NULL);
    for (int i = 0; i < count; i++) {
        buffers[i].iov_len = messages[i].msg_len;
    }
    if (count > 0) {
        sendmmsg(fd, messages, (unsigned)count, 0);
    }
}

int main(int argc, char **argv) {
    const char *mode = argc == 3 ? argv[1] : "";
    bool echo = strcmp(mode, "--echo") == 0, udp = strcmp(mode, "--udp-echo") == 0;
    has_date = strcmp(mode, "--http") == 0;
    if (!echo && !udp && !has_date && strcmp(mode, "--native-http") != 0) {
        fprintf(stderr, "usage: epoll-server --echo PORT | --http PORT | --native-http PORT | --udp-echo PORT\n");
        return 2;
    }
    response_length = (size_t)snprintf(
        response, sizeof response, "HTTP/1.1 200 OK\r\nServer: evio\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!");

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    int on = 1, server = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || (!udp && listen(server, 512) < 0)) {
        die("bind");
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[MAX_EVENTS] = {{.events = EPOLLIN, .data.ptr = NULL}}; // NULL: the server's own socket
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, server, &events[0]) < 0) {
        die("epoll");
    }
    puts("serving");
    fflush(stdout);

    while (true) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        update_date();
        for (int i = 0; i < count; i++) {
            connection *c = events[i].data.ptr;
            if (c == NULL) {
                udp ? echo_datagrams(server) : accept_all(server);
            } else if (c->pending_length > 0) {
                on_writable(c);
            } else {
                on_readable(c, echo);
            }
        }
    }
}
