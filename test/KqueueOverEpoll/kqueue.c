/*
 * kqueue(2) over epoll(7), for tests on Linux: what an event loop needs, as the manual pages of macOS and FreeBSD say it.
 *
 *   - EVFILT_READ and EVFILT_WRITE of sockets, each with its own udata; EV_CLEAR (edge-triggered) or, for reading alone, level-triggered
 *   - EV_EOF with unread data still counted in `data`, and the error in `fflags`; EV_OOBAND for urgent data
 *   - EVFILT_USER with EV_CLEAR, triggered by NOTE_TRIGGER from any thread
 *   - changes are made in order, all of them; refused ones, and with EV_RECEIPT all, are answered in the event list, and without room there by -1
 *
 * It differs where epoll does: an edge of one direction repeats the state of the other, which a kqueue would not report again. And `fflags` of a
 * failed socket is always ECONNRESET, because Linux cannot tell the error without taking it.
 *
 * A kqueue is an epoll descriptor, to be closed with close(2), and nothing else is kept open for it. So the user event needs no descriptor of its own: all
 * kqueues share one eventfd that is always readable, and triggering arms it once (EPOLLONESHOT).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Darwin's <sys/event.h>. */
struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

_Static_assert(sizeof(struct kevent) == 32, "Darwin's layout");

enum {
    EVFILT_READ = -1, EVFILT_WRITE = -2, EVFILT_USER = -10,
    EV_ADD = 0x1, EV_DELETE = 0x2, EV_CLEAR = 0x20, EV_RECEIPT = 0x40, EV_OOBAND = 0x2000, EV_ERROR = 0x4000, EV_EOF = 0x8000,
    NOTE_TRIGGER = 0x01000000
};

#define READING (EPOLLIN | EPOLLPRI | EPOLLRDHUP)
#define USER_EVENT UINT64_MAX

/* The filters of one descriptor. */
struct filters {
    uint32_t interest;      /* what epoll was asked for; 0 if there is no filter */
    uint32_t generation;    /* tells the events of a descriptor from those of a former one with its number */
    void *read_udata;
    void *write_udata;
};

struct queue {
    pthread_mutex_t lock;
    struct filters *filters;
    size_t capacity;
    int has_user;
    void *user_udata;
};

static pthread_mutex_t queues_lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue **queues;       /* by descriptor */
static size_t queues_capacity;
static int always_readable = -1;

static int grow(void **array, size_t *capacity, size_t size, size_t index)
{
    if (index < *capacity)
        return 0;
    size_t wanted = index + 64;
    void *grown = realloc(*array, wanted * size);
    if (grown == NULL)
        return ENOMEM;
    memset((char *)grown + *capacity * size, 0, (wanted - *capacity) * size);
    *array = grown;
    *capacity = wanted;
    return 0;
}

EXPORT int kqueue(void)
{
    int kq = epoll_create1(0);
    if (kq < 0)
        return -1;

    int error = 0;
    struct queue *queue = calloc(1, sizeof *queue);
    pthread_mutex_lock(&queues_lock);
    if (always_readable < 0 && (always_readable = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        error = errno;
    else if (queue == NULL || grow((void **)&queues, &queues_capacity, sizeof *queues, (size_t)kq) != 0)
        error = ENOMEM;
    else {
        /* Whoever had this number closed it. */
        if (queues[kq] != NULL) {
            free(queues[kq]->filters);
            free(queues[kq]);
        }
        pthread_mutex_init(&queue->lock, NULL);
        queues[kq] = queue;
    }
    pthread_mutex_unlock(&queues_lock);

    if (error != 0) {
        free(queue);
        close(kq);
        errno = error;
        return -1;
    }
    return kq;
}

static struct queue *find(int kq)
{
    pthread_mutex_lock(&queues_lock);
    struct queue *queue = kq >= 0 && (size_t)kq < queues_capacity ? queues[kq] : NULL;
    pthread_mutex_unlock(&queues_lock);
    return queue;
}

static int control(int kq, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = { .events = events, .data.u64 = data };
    return epoll_ctl(kq, operation, fd, &event) < 0 ? errno : 0;
}

static uint64_t data_of(int fd, const struct filters *filters)
{
    return (uint64_t)filters->generation << 32 | (uint32_t)fd;
}

static int change_user(int kq, struct queue *queue, const struct kevent *change)
{
    int error = 0;
    if (change->flags & EV_ADD) {
        if (!(change->flags & EV_CLEAR))
            return ENOTSUP;
        if (!queue->has_user)
            error = control(kq, EPOLL_CTL_ADD, always_readable, EPOLLONESHOT, USER_EVENT);
        if (error != 0)
            return error;
        queue->has_user = 1;
        queue->user_udata = change->udata;
    }
    if (!queue->has_user)
        return ENOENT;
    if (change->flags & EV_DELETE) {
        queue->has_user = 0;
        return control(kq, EPOLL_CTL_DEL, always_readable, 0, 0);
    }
    return change->fflags & NOTE_TRIGGER ? control(kq, EPOLL_CTL_MOD, always_readable, EPOLLIN | EPOLLONESHOT, USER_EVENT) : 0;
}

static int change_one(int kq, struct queue *queue, const struct kevent *change)
{
    if (change->filter == EVFILT_USER)
        return change_user(kq, queue, change);
    if (change->filter != EVFILT_READ && change->filter != EVFILT_WRITE)
        return EINVAL;
    if (change->ident > INT_MAX)
        return EBADF;

    int fd = (int)change->ident, error = grow((void **)&queue->filters, &queue->capacity, sizeof *queue->filters, (size_t)fd);
    if (error != 0)
        return error;
    struct filters *filters = &queue->filters[fd];
    uint32_t bits = change->filter == EVFILT_READ ? READING : EPOLLOUT;

    if (change->flags & EV_DELETE) {
        if (!(filters->interest & bits))
            return ENOENT;
        filters->interest &= ~bits;
        if (filters->interest & (READING | EPOLLOUT))
            return control(kq, EPOLL_CTL_MOD, fd, filters->interest, data_of(fd, filters));
        filters->interest = 0;
        return control(kq, EPOLL_CTL_DEL, fd, 0, 0);
    }

    if (!(change->flags & EV_ADD))
        return filters->interest & bits ? 0 : ENOENT;

    uint32_t mode = change->flags & EV_CLEAR ? EPOLLET : 0, interest = filters->interest | bits | mode;
    int other_mode = (filters->interest & EPOLLET) != mode;
    error = ENOENT;
    if (filters->interest != 0)
        error = control(kq, EPOLL_CTL_MOD, fd, other_mode ? filters->interest : interest, data_of(fd, filters));
    if (error == 0 && other_mode)
        return ENOTSUP;
    if (error == ENOENT) {
        /* New, or a descriptor of that number was closed. */
        interest = bits | mode;
        filters->generation++;
        error = control(kq, EPOLL_CTL_ADD, fd, interest, data_of(fd, filters));
    }
    if (error != 0) {
        filters->interest = 0;
        return error;
    }
    filters->interest = interest;
    if (change->filter == EVFILT_READ)
        filters->read_udata = change->udata;
    else
        filters->write_udata = change->udata;
    return 0;
}

/* Whether this side sends no more: the socket is then at its end for EVFILT_WRITE, whatever the peer does. */
static int output_is_shut(int fd)
{
    unsigned char state = 0;
    socklen_t length = 1;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &length) == 0
        && (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING || state == TCP_TIME_WAIT || state == TCP_LAST_ACK
            || state == TCP_CLOSE);
}

static int report(const struct filters *filters, int fd, uint32_t events, struct kevent *out, int room)
{
    uint32_t error = events & EPOLLERR ? ECONNRESET : 0;
    uint16_t clear = filters->interest & EPOLLET ? EV_CLEAR : 0;
    struct kevent found[2];
    int count = 0, pending = 0;

    if ((filters->interest & READING) && (events & (READING | EPOLLHUP | EPOLLERR))) {
        int at_end = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        (void)ioctl(fd, FIONREAD, &pending);
        found[count++] = (struct kevent){
            .ident = (uintptr_t)fd, .filter = EVFILT_READ, .data = pending, .udata = filters->read_udata,
            .flags = (uint16_t)(EV_ADD | clear | (at_end ? EV_EOF : 0) | (events & EPOLLPRI ? EV_OOBAND : 0)), .fflags = at_end ? error : 0
        };
    }
    if ((filters->interest & EPOLLOUT) && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
        int at_end = (events & (EPOLLHUP | EPOLLERR)) != 0 || output_is_shut(fd);
        found[count++] = (struct kevent){
            .ident = (uintptr_t)fd, .filter = EVFILT_WRITE, .data = 1, .udata = filters->write_udata,
            .flags = (uint16_t)(EV_ADD | clear | (at_end ? EV_EOF : 0)), .fflags = at_end ? error : 0
        };
    }
    if (count > room)
        return -1;
    memcpy(out, found, (size_t)count * sizeof *out);
    return count;
}

EXPORT int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents, const struct timespec *timeout)
{
    struct queue *queue = find(kq);
    if (queue == NULL) {
        errno = EBADF;
        return -1;
    }

    int count = 0, unanswered = 0;
    pthread_mutex_lock(&queue->lock);
    for (int i = 0; i < nchanges; i++) {
        /* The answers may overwrite the changes before. */
        struct kevent change = changes[i];
        int error = change_one(kq, queue, &change);
        if (error == 0 && !(change.flags & EV_RECEIPT))
            continue;
        if (count < nevents) {
            change.flags = EV_ERROR;
            change.data = error;
            events[count++] = change;
        } else if (error != 0 && unanswered == 0)
            unanswered = error;
    }
    pthread_mutex_unlock(&queue->lock);
    if (unanswered != 0) {
        errno = unanswered;
        return -1;
    }
    if (count > 0 || nevents <= 0)
        return count;

    /* A time is never cut short: rounded up to milliseconds. */
    int milliseconds = -1;
    if (timeout != NULL)
        milliseconds = timeout->tv_sec >= INT_MAX / 1000 ? INT_MAX : (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
    struct epoll_event *ready = malloc((size_t)nevents * sizeof *ready);
    if (ready == NULL) {
        errno = ENOMEM;
        return -1;
    }

    int found;
    do {
        found = epoll_wait(kq, ready, nevents, milliseconds);
        int error = errno;
        if (found < 0) {
            free(ready);
            errno = error;
            return -1;
        }
        pthread_mutex_lock(&queue->lock);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.u64 == USER_EVENT) {
                if (count < nevents)
                    events[count++] = (struct kevent){ .filter = EVFILT_USER, .flags = EV_ADD | EV_CLEAR, .udata = queue->user_udata };
                else
                    (void)control(kq, EPOLL_CTL_MOD, always_readable, EPOLLIN | EPOLLONESHOT, USER_EVENT);
                continue;
            }
            int fd = (int)(uint32_t)ready[i].data.u64;
            struct filters *filters = &queue->filters[fd];
            if (filters->interest == 0 || data_of(fd, filters) != ready[i].data.u64)
                continue;
            int reported = report(filters, fd, ready[i].events, events + count, nevents - count);
            if (reported >= 0)
                count += reported;
            else
                /* No room for both directions: the edge comes again with the next wait. */
                (void)control(kq, EPOLL_CTL_MOD, fd, filters->interest, data_of(fd, filters));
        }
        pthread_mutex_unlock(&queue->lock);
        /* All that came may have been of descriptors that are closed. */
    } while (found > 0 && count == 0 && milliseconds < 0);
    free(ready);
    return count;
}
