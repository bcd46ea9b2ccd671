// System calls that fail on request, for tests of a real process: LD_PRELOAD=faults.so EVIO_FAULTS=file.
//
// The runtime looks up what managed code calls in the C library by name, with dlsym(3), and dlsym is all that this library replaces: for the names below
// it gives out functions of its own. So the transport's calls come here, and nobody else's: not those of the runtime, not those of System.Net.Sockets.
//
// The file is memory shared with the test, which says in it what is to fail, and reads how often it did. It is laid out as in FaultControl.cs.
//
// A fault must be one that the kernel could have made. After a receive or send that "would block", or that is short, the kernel owes an edge-triggered
// poller an event: the descriptor is modified to what it is watched for already, which reports what is ready anew (epoll_ctl(2)). What close(2) reports
// it reports after the descriptor is gone, and an interrupted connect(2) goes on.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RULES = 4, ERRORS = 32, LOG = 1 << 16, DESCRIPTORS = 1 << 16, SHORT = -1, ANY = -1 };

enum call {
    ACCEPT, ACCEPT4, BIND, CLOSE, CONNECT, EPOLL_CREATE1, EPOLL_CTL, EPOLL_WAIT, EVENTFD, FCHMOD, FCHMODAT, FCNTL, FLOCK, GETSOCKNAME, GETSOCKOPT, LISTEN, OPEN,
    READ, RECV, RECVMMSG, RECVMSG, SCHED_SETAFFINITY, SEND, SENDMMSG, SENDMSG, SETSOCKOPT, SHUTDOWN, SOCKET, STATX, WRITE, CALLS
};

// Fails calls number skip + 1 to skip + count of those that it is about.
struct rule {
    int32_t call;
    int32_t error;          // an error number, or SHORT
    int32_t port;           // only of descriptors whose peer has this port, or which are bound to it; 0: of any
    int32_t detail;         // an option, an operation, a family; ANY
    _Atomic int32_t skip;
    _Atomic int32_t count;
    _Atomic int32_t met;
    int32_t unused;
};

// Fails any call of a kind, by chance, with one of its errors.
struct chance {
    int32_t millionths;
    int32_t errors;
    int32_t error[ERRORS];
};

struct fault {
    int32_t call;
    int32_t error;
    int32_t port;
    int32_t unused;
};

struct control {
    _Atomic int32_t armed;  // 0: nothing fails. It may change at any time, what follows only while nothing is armed and nobody is busy.
    _Atomic int32_t busy;   // calls that are looking at the rules
    _Atomic int32_t closed; // calls on descriptors that were not open
    _Atomic int32_t loaded;
    int32_t rules;
    int32_t chances;
    uint64_t random;
    struct rule rule[RULES];
    struct chance chance[CALLS];
    _Atomic int64_t calls[CALLS];
    _Atomic int64_t logged;
    struct fault log[LOG];
};

// What is known of a descriptor.
struct descriptor {
    int port;
    int epoll;
    struct epoll_event watched;
};

static struct control *control;
static struct descriptor descriptors[DESCRIPTORS];
static pthread_mutex_t chances = PTHREAD_MUTEX_INITIALIZER;
static void *(*real_dlsym)(void *, const char *);

static struct descriptor *descriptor_of(int fd)
{
    static struct descriptor none;
    return fd >= 0 && fd < DESCRIPTORS ? &descriptors[fd] : &none;
}

static int port_of(const struct sockaddr_storage *address)
{
    switch (address->ss_family) {
    case AF_INET: return ntohs(((const struct sockaddr_in *)address)->sin_port);
    case AF_INET6: return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    default: return 0;
    }
}

// xorshift64*
static uint32_t next_random(void)
{
    uint64_t x = control->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    control->random = x;
    return (uint32_t)((x * 0x2545F4914F6CDD1DULL) >> 32);
}

static int by_chance(enum call call)
{
    const struct chance *chance = &control->chance[call];
    int error = 0;
    if (control->chances && chance->millionths > 0) {
        pthread_mutex_lock(&chances);
        if (next_random() % 1000000 < (uint32_t)chance->millionths)
            error = chance->error[next_random() % (uint32_t)chance->errors];
        pthread_mutex_unlock(&chances);
    }
    return error;
}

static int by_rule(enum call call, int fd, int detail)
{
    for (int i = 0; i < control->rules; i++) {
        struct rule *rule = &control->rule[i];
        if (rule->call != (int32_t)call || (rule->port && rule->port != descriptor_of(fd)->port) || (rule->detail != ANY && rule->detail != detail))
            continue;
        if (atomic_fetch_sub(&rule->skip, 1) > 0)
            continue;
        if (atomic_fetch_sub(&rule->count, 1) > 0) {
            atomic_fetch_add(&rule->met, 1);
            return rule->error;
        }
    }
    return 0;
}

// What this call is to come to: 0 for what it comes to by itself, SHORT or an error number.
static int fault(enum call call, int fd, int detail)
{
    int error = 0;
    atomic_fetch_add_explicit(&control->calls[call], 1, memory_order_relaxed);
    if (!atomic_load(&control->armed))
        return 0;
    atomic_fetch_add(&control->busy, 1);
    if (atomic_load(&control->armed)) {
        error = by_rule(call, fd, detail);
        if (!error)
            error = by_chance(call);
        if (error) {
            struct fault *entry = &control->log[atomic_fetch_add(&control->logged, 1) % LOG];
            *entry = (struct fault){ .call = (int32_t)call, .error = error, .port = descriptor_of(fd)->port };
        }
    }
    atomic_fetch_sub(&control->busy, 1);
    return error;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

// The result of a call that was made: one that reached a closed descriptor is remembered.
static ssize_t made(ssize_t result)
{
    if (result < 0 && errno == EBADF)
        atomic_fetch_add(&control->closed, 1);
    return result;
}

// Has what is ready reported again.
static void report_again(int fd)
{
    struct descriptor *descriptor = descriptor_of(fd);
    if (descriptor->watched.events & EPOLLET) {
        int error = errno;
        struct epoll_event event = descriptor->watched;
        epoll_ctl(descriptor->epoll, EPOLL_CTL_MOD, fd, &event);
        errno = error;
    }
}

static ssize_t fail_transfer(int fd, int error)
{
    if (error == EAGAIN)
        report_again(fd);
    return fail(error);
}

static int opened(int fd, int port)
{
    if (fd >= 0)
        *descriptor_of(fd) = (struct descriptor){ .port = port };
    return fd;
}

static int f_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    int error = fault(ACCEPT4, fd, ANY);
    if (error)
        return fail(error);
    int accepted = (int)made(accept4(fd, address, length, flags));
    struct sockaddr_storage peer = { 0 };
    socklen_t size = sizeof peer;
    if (accepted >= 0)
        getpeername(accepted, (struct sockaddr *)&peer, &size);
    return opened(accepted, port_of(&peer));
}

static int f_accept(int fd, struct sockaddr *address, socklen_t *length)
{
    int error = fault(ACCEPT, fd, ANY);
    return error ? fail(error) : (int)made(accept(fd, address, length));
}

static int f_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    int error = fault(BIND, fd, address->sa_family);
    if (error)
        return fail(error);
    int result = (int)made(bind(fd, address, length));
    struct sockaddr_storage own = { 0 };
    socklen_t size = sizeof own;
    if (result == 0 && getsockname(fd, (struct sockaddr *)&own, &size) == 0)
        descriptor_of(fd)->port = port_of(&own);
    return result;
}

static int f_close(int fd)
{
    int error = fault(CLOSE, fd, ANY);
    *descriptor_of(fd) = (struct descriptor){ 0 };
    int result = (int)made(close(fd));
    return error && result == 0 ? fail(error) : result;
}

static int f_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_storage peer = { 0 };
    memcpy(&peer, address, length < sizeof peer ? length : sizeof peer);
    if (address->sa_family != AF_UNSPEC)
        descriptor_of(fd)->port = port_of(&peer);
    int error = fault(CONNECT, fd, address->sa_family);
    if (error && error != EINPROGRESS && error != EINTR)
        return fail(error);
    int result = (int)made(connect(fd, address, length));
    return error ? fail(error) : result;
}

static int f_epoll_create1(int flags)
{
    int error = fault(EPOLL_CREATE1, -1, ANY);
    return error ? fail(error) : opened(epoll_create1(flags), 0);
}

static int f_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int error = fault(EPOLL_CTL, fd, operation);
    if (error)
        return fail(error);

    // Before the call: events may be handled, and the descriptor used, before it returns.
    struct descriptor *descriptor = descriptor_of(fd);
    if (operation == EPOLL_CTL_DEL) {
        descriptor->watched.events = 0;
    } else {
        descriptor->epoll = epoll;
        descriptor->watched = *event;
    }
    int result = (int)made(epoll_ctl(epoll, operation, fd, event));
    if (result < 0)
        descriptor->watched.events = 0;
    return result;
}

static int f_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout)
{
    int error = fault(EPOLL_WAIT, epoll, ANY);
    return error ? fail(error) : (int)made(epoll_wait(epoll, events, count, timeout));
}

static int f_eventfd(unsigned int value, int flags)
{
    int error = fault(EVENTFD, -1, ANY);
    return error ? fail(error) : opened(eventfd(value, flags), 0);
}

static int f_fchmod(int fd, mode_t mode)
{
    int error = fault(FCHMOD, fd, ANY);
    return error ? fail(error) : (int)made(fchmod(fd, mode));
}

static int f_fchmodat(int directory, const char *path, mode_t mode, int flags)
{
    int error = fault(FCHMODAT, -1, ANY);
    return error ? fail(error) : fchmodat(directory, path, mode, flags);
}

static int f_fcntl(int fd, int command, long argument)
{
    int error = fault(FCNTL, fd, command);
    return error ? fail(error) : (int)made(fcntl(fd, command, argument));
}

static int f_flock(int fd, int operation)
{
    int error = fault(FLOCK, fd, operation);
    return error ? fail(error) : (int)made(flock(fd, operation));
}

static int f_getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    int error = fault(GETSOCKNAME, fd, ANY);
    return error ? fail(error) : (int)made(getsockname(fd, address, length));
}

static int f_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    int error = fault(GETSOCKOPT, fd, option);
    return error ? fail(error) : (int)made(getsockopt(fd, level, option, value, length));
}

static int f_listen(int fd, int backlog)
{
    int error = fault(LISTEN, fd, ANY);
    return error ? fail(error) : (int)made(listen(fd, backlog));
}

static int f_open(const char *path, int flags)
{
    int error = fault(OPEN, -1, flags);
    return error ? fail(error) : opened(open(path, flags), 0);
}

static ssize_t f_read(int fd, void *buffer, size_t count)
{
    int error = fault(READ, fd, ANY);
    return error ? fail(error) : made(read(fd, buffer, count));
}

static ssize_t f_recv(int fd, void *buffer, size_t length, int flags)
{
    int error = fault(RECV, fd, ANY);
    if (error > 0)
        return fail_transfer(fd, error);
    ssize_t result = made(recv(fd, buffer, error == SHORT && length > 1 ? length / 2 : length, flags));
    if (error == SHORT)
        report_again(fd);
    return result;
}

// Less room than the vectors have: a vector less and a byte less.
static size_t shorten(struct msghdr *message, struct iovec *vectors)
{
    size_t count = message->msg_iovlen < 64 ? message->msg_iovlen : 64;
    memcpy(vectors, message->msg_iov, count * sizeof *vectors);
    if (count > 1)
        count--;
    if (vectors[count - 1].iov_len > 1)
        vectors[count - 1].iov_len--;
    return count;
}

static ssize_t f_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct iovec vectors[64];
    struct msghdr shortened = *message;
    int error = fault(RECVMSG, fd, ANY);
    if (error > 0)
        return fail_transfer(fd, error);
    if (!error)
        return made(recvmsg(fd, message, flags));
    shortened.msg_iovlen = shorten(message, vectors);
    shortened.msg_iov = vectors;
    ssize_t result = made(recvmsg(fd, &shortened, flags));
    report_again(fd);
    return result;
}

static int f_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout)
{
    int error = fault(RECVMMSG, fd, ANY);
    return error > 0 ? (int)fail_transfer(fd, error) : (int)made(recvmmsg(fd, messages, error ? 1 : count, flags, timeout));
}

static int f_sched_setaffinity(pid_t thread, size_t size, const cpu_set_t *mask)
{
    int error = fault(SCHED_SETAFFINITY, -1, ANY);
    return error ? fail(error) : sched_setaffinity(thread, size, mask);
}

static ssize_t f_send(int fd, const void *buffer, size_t length, int flags)
{
    int error = fault(SEND, fd, ANY);
    if (error > 0)
        return fail_transfer(fd, error);
    ssize_t result = made(send(fd, buffer, error == SHORT && length > 1 ? length / 2 : length, flags));
    if (error == SHORT)
        report_again(fd);
    return result;
}

static ssize_t f_sendmsg(int fd, struct msghdr *message, int flags)
{
    struct iovec vectors[64];
    struct msghdr shortened = *message;
    int error = fault(SENDMSG, fd, ANY);
    if (error > 0)
        return fail_transfer(fd, error);
    if (!error)
        return made(sendmsg(fd, message, flags));
    shortened.msg_iovlen = shorten(message, vectors);
    shortened.msg_iov = vectors;
    ssize_t result = made(sendmsg(fd, &shortened, flags));
    report_again(fd);
    return result;
}

static int f_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    int error = fault(SENDMMSG, fd, ANY);
    return error > 0 ? (int)fail_transfer(fd, error) : (int)made(sendmmsg(fd, messages, error ? 1 : count, flags));
}

static int f_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    int error = fault(SETSOCKOPT, fd, option);
    return error ? fail(error) : (int)made(setsockopt(fd, level, option, value, length));
}

static int f_shutdown(int fd, int how)
{
    int error = fault(SHUTDOWN, fd, how);
    return error ? fail(error) : (int)made(shutdown(fd, how));
}

static int f_socket(int domain, int type, int protocol)
{
    int error = fault(SOCKET, -1, domain);
    return error ? fail(error) : opened(socket(domain, type, protocol), 0);
}

static int f_statx(int directory, const char *path, int flags, unsigned int mask, struct statx *result)
{
    int error = fault(STATX, -1, ANY);
    return error ? fail(error) : statx(directory, path, flags, mask, result);
}

static ssize_t f_write(int fd, const void *buffer, size_t count)
{
    int error = fault(WRITE, fd, ANY);
    return error ? fail(error) : made(write(fd, buffer, count));
}

static const struct {
    const char *name;
    void *function;
} replaced[CALLS] = {
    [ACCEPT] = { "accept", f_accept },
    [ACCEPT4] = { "accept4", f_accept4 },
    [BIND] = { "bind", f_bind },
    [CLOSE] = { "close", f_close },
    [CONNECT] = { "connect", f_connect },
    [EPOLL_CREATE1] = { "epoll_create1", f_epoll_create1 },
    [EPOLL_CTL] = { "epoll_ctl", f_epoll_ctl },
    [EPOLL_WAIT] = { "epoll_wait", f_epoll_wait },
    [EVENTFD] = { "eventfd", f_eventfd },
    [FCHMOD] = { "fchmod", f_fchmod },
    [FCHMODAT] = { "fchmodat", f_fchmodat },
    [FCNTL] = { "fcntl", f_fcntl },
    [FLOCK] = { "flock", f_flock },
    [GETSOCKNAME] = { "getsockname", f_getsockname },
    [GETSOCKOPT] = { "getsockopt", f_getsockopt },
    [LISTEN] = { "listen", f_listen },
    [OPEN] = { "open", f_open },
    [READ] = { "read", f_read },
    [RECV] = { "recv", f_recv },
    [RECVMMSG] = { "recvmmsg", f_recvmmsg },
    [RECVMSG] = { "recvmsg", f_recvmsg },
    [SCHED_SETAFFINITY] = { "sched_setaffinity", f_sched_setaffinity },
    [SEND] = { "send", f_send },
    [SENDMMSG] = { "sendmmsg", f_sendmmsg },
    [SENDMSG] = { "sendmsg", f_sendmsg },
    [SETSOCKOPT] = { "setsockopt", f_setsockopt },
    [SHUTDOWN] = { "shutdown", f_shutdown },
    [SOCKET] = { "socket", f_socket },
    [STATX] = { "statx", f_statx },
    [WRITE] = { "write", f_write },
};

__attribute__((constructor)) static void load(void)
{
    static const char *const versions[] = { "GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5" };
    for (size_t i = 0; i < sizeof versions / sizeof *versions && !real_dlsym; i++)
        real_dlsym = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    const char *file = getenv("EVIO_FAULTS");
    int fd = file && !control ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED) {
        control = memory;
        atomic_store(&control->loaded, (int32_t)sizeof *control);
    }
}

__attribute__((visibility("default"))) void *dlsym(void *handle, const char *name)
{
    // Somebody else's constructor may come before this library's.
    if (!real_dlsym)
        load();
    void *found = real_dlsym(handle, name);
    if (!found || !control || handle == RTLD_NEXT)
        return found;
    for (int i = 0; i < CALLS; i++) {
        if (strcmp(replaced[i].name, name) == 0 && found == real_dlsym(RTLD_DEFAULT, name))
            return replaced[i].function;
    }
    return found;
}
