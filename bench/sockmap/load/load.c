// SPDX-License-Identifier: Apache-2.0
/*
 * Loads for one TCP path, in C so that what is measured is the path and not an interpreter. Every command but the first
 * two prints one JSON object; cpu_us is the CPU time of this process and of all PIDs: servers, and proxies on the way.
 *
 *   load serve ADDRESS PORT                                     prints "ready", then answers until it is killed
 *   load accept ADDRESS PORT                                    the same; closes whatever connects
 *   load requests ADDRESS PORT BYTES COUNT BEHIND [PID...]      as many bytes back for each request; both ends keep
 *                                                               them BEHIND bytes behind a page's beginning
 *   load http ADDRESS PORT BYTES COUNT [PID...]                 GET over one connection, a body of BYTES
 *   load bulk ADDRESS PORT WRITE_BYTES MSEC STALL_MSEC FLOWS [PID...]
 *                                                               so many connections at once, their readers sleep first
 *   load connect ADDRESS PORT COUNT [PID...]                    connect and close, no byte
 *   load hold ADDRESS PORT COUNT                                to readers that never read, until stdin ends
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

#define WARM_UP_OPS 300
#define WARM_UP_MSEC 150
#define SETTLED_MSEC 200

static char **pids; /* whose CPU time counts beside ours; ends with NULL */

static uint64_t cpu_nsec(void)
{
	uint64_t sum = nsec(CLOCK_PROCESS_CPUTIME_ID);
	clockid_t clock;

	for (char **pid = pids; *pid; pid++) {
		expect(!clock_getcpuclockid(atoi(*pid), &clock), "a process whose CPU time counts is gone");
		sum += nsec(clock);
	}
	return sum;
}

static int ordered(char **address, enum kind kind, uint32_t number, uint32_t behind)
{
	struct order order = {kind, number, behind};
	int made = connected(address);

	expect(write_all(made, &order, sizeof(order)), "the server hung up");
	return made;
}

static int by_value(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static void print_times(uint64_t *times, int count, uint64_t cpu)
{
	uint64_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += times[i];
	qsort(times, count, sizeof(*times), by_value);
	printf("{\"count\": %d, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"cpu_us\": %.3f}\n", count,
	       (double)sum / count / NSEC_PER_USEC, (double)times[count / 2] / NSEC_PER_USEC,
	       (double)times[count - 1 - count / 100] / NSEC_PER_USEC, (double)cpu / count / NSEC_PER_USEC);
}

/* One operation: sends what is asked for and waits for the whole answer. */
typedef void operation(int socket, char *bytes, uint32_t size);

static void echo(int socket, char *bytes, uint32_t size)
{
	expect(write_all(socket, bytes, size) && read_all(socket, bytes, size), "the server hung up");
}

static void get(int socket, char *text, uint32_t size)
{
	size_t filled = snprintf(text, BUFFER_BYTES, "GET /%u HTTP/1.1\r\nHost: bench\r\n\r\n", size);
	size_t wanted = SIZE_MAX;

	expect(write_all(socket, text, filled), "the proxy hung up");
	for (filled = 0; filled < wanted;) {
		ssize_t got = read_some(socket, text + filled, BUFFER_BYTES - filled - 1);
		const char *end;

		expect(got > 0, "the proxy hung up");
		filled += got;
		text[filled] = 0;
		if (wanted == SIZE_MAX && (end = strstr(text, "\r\n\r\n")))
			wanted = end + 4 - text + size;
	}
	expect(filled == wanted && !strncmp(text, "HTTP/1.1 200 ", 13), "not the answer that was asked for");
}

static void time_operations(int socket, operation *operate, uint32_t size, int count, uint32_t behind)
{
	uint64_t *times = calloc(count, sizeof(*times)), cpu = 0, begun;
	char *bytes = buffer() + behind;

	expect(times != NULL, "COUNT is too much");
	for (int i = -WARM_UP_OPS; i < count; i++) {
		if (!i)
			cpu = cpu_nsec();
		begun = nsec(CLOCK_MONOTONIC);
		operate(socket, bytes, size);
		if (i >= 0)
			times[i] = nsec(CLOCK_MONOTONIC) - begun;
	}
	print_times(times, count, cpu_nsec() - cpu);
}

/* One connection of bulk. Times are nsec() of CLOCK_MONOTONIC. */
struct flow {
	pthread_t thread;
	int socket;
	size_t write_bytes;
	uint64_t warm_until, end;
	uint64_t counted; /* bytes written after warm_until */
};

/* Returns once the reader has got the last byte. */
static void *pour(void *argument)
{
	struct flow *flow = argument;
	uint64_t written = 0, warm = 0, now = 0, seen;
	char *bytes = buffer();

	while (now < flow->end) {
		expect(write_all(flow->socket, bytes, flow->write_bytes), "the reader hung up");
		written += flow->write_bytes;
		now = nsec(CLOCK_MONOTONIC);
		if (now < flow->warm_until)
			warm = written;
	}
	if (shutdown(flow->socket, SHUT_WR))
		die("shutdown");
	expect(read_all(flow->socket, &seen, sizeof(seen)), "the reader hung up");
	if (seen != written) {
		fprintf(stderr, "load: %llu bytes written, %llu read\n", (unsigned long long)written,
			(unsigned long long)seen);
		exit(1);
	}
	flow->counted = written - warm;
	return NULL;
}

/* Counts from the moment when the flows are steady until the last reader has got its last byte. */
static void bulk(char **address, size_t write_bytes, uint64_t msec, uint64_t stall_msec, unsigned count)
{
	struct flow *flows = calloc(count, sizeof(*flows));
	uint64_t bytes = 0, begun, cpu, now;

	expect(count && flows != NULL, "FLOWS is nothing, or too much");
	expect(write_bytes <= BUFFER_BYTES, "WRITE_BYTES is too much");
	for (unsigned i = 0; i < count; i++)
		flows[i].socket = ordered(address, SINK, stall_msec, 0);
	begun = nsec(CLOCK_MONOTONIC) + (stall_msec + WARM_UP_MSEC) * NSEC_PER_MSEC;
	for (unsigned i = 0; i < count; i++) {
		flows[i].write_bytes = write_bytes;
		flows[i].warm_until = begun;
		flows[i].end = begun + msec * NSEC_PER_MSEC;
		expect(!pthread_create(&flows[i].thread, NULL, pour, &flows[i]), "FLOWS is too much");
	}
	sleep_msec(stall_msec + WARM_UP_MSEC);
	cpu = cpu_nsec();
	for (unsigned i = 0; i < count; i++) {
		expect(!pthread_join(flows[i].thread, NULL), "a thread is lost");
		bytes += flows[i].counted;
	}
	now = nsec(CLOCK_MONOTONIC);
	cpu = cpu_nsec() - cpu;
	printf("{\"bytes\": %llu, \"bytes_per_sec\": %.0f, \"cpu_ns_per_byte\": %.5f}\n", (unsigned long long)bytes,
	       bytes * 1e9 / (now - begun), (double)cpu / bytes);
}

static void close_with_reset(int socket)
{
	struct linger reset = {.l_onoff = 1};

	if (setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		die("SO_LINGER");
	close(socket);
}

/* The clock stands while the server closes its end, so that no socket is left in TIME_WAIT. */
static void time_connections(char **address, int count)
{
	uint64_t *times = calloc(count, sizeof(*times)), cpu = cpu_nsec(), begun;
	char byte;

	expect(times != NULL, "COUNT is too much");
	for (int i = 0; i < count; i++) {
		int socket;

		begun = nsec(CLOCK_MONOTONIC);
		socket = connected(address);
		times[i] = nsec(CLOCK_MONOTONIC) - begun;
		expect(!read_some(socket, &byte, 1), "the server does not hang up");
		begun = nsec(CLOCK_MONOTONIC);
		close_with_reset(socket);
		times[i] += nsec(CLOCK_MONOTONIC) - begun;
	}
	print_times(times, count, cpu_nsec() - cpu);
}

static uint64_t fill(int socket, const char *bytes)
{
	uint64_t filled = 0;
	ssize_t put;

	while ((put = send(socket, bytes, 64 << 10, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		filled += put;
	expect(errno == EAGAIN, "a reader hung up");
	return filled;
}

static void hold(char **address, int count)
{
	int *sockets = calloc(count, sizeof(*sockets));
	uint64_t filled = 0, more;
	char *bytes = buffer(), byte;

	expect(sockets != NULL, "COUNT is too much");
	for (int i = 0; i < count; i++)
		sockets[i] = ordered(address, HOLD, 0, 0);
	do {
		more = 0;
		for (int i = 0; i < count; i++)
			more += fill(sockets[i], bytes);
		filled += more;
		sleep_msec(SETTLED_MSEC);
	} while (more);
	printf("{\"bytes\": %llu}\n", (unsigned long long)filled);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	/* What was not read goes with the connection, and not only once the kernel has given up delivering it. */
	for (int i = 0; i < count; i++)
		close_with_reset(sockets[i]);
}

static uint64_t argument(int at, int argc, char **argv)
{
	expect(at < argc, "too few arguments; see the top of load.c");
	return strtoull(argv[at], NULL, 10);
}

int main(int argc, char **argv)
{
	const char *what = argc > 3 ? argv[1] : "";
	char **address = argv + 2;

	/* The first PID's place, of the commands that have any. */
	pids = argv + argc;
	if (!strcmp(what, "serve") || !strcmp(what, "accept"))
		serve(address, *what == 'a');
	if (!strcmp(what, "hold")) {
		hold(address, argument(4, argc, argv));
	} else if (!strcmp(what, "connect")) {
		pids = argv + 5;
		time_connections(address, argument(4, argc, argv));
	} else if (!strcmp(what, "bulk")) {
		uint64_t stall_msec = argument(6, argc, argv);

		pids = argv + 8;
		bulk(address, argument(4, argc, argv), argument(5, argc, argv), stall_msec, argument(7, argc, argv));
	} else if (!strcmp(what, "requests") || !strcmp(what, "http")) {
		uint32_t size = argument(4, argc, argv), count = argument(5, argc, argv), behind = 0;

		pids = argv + 6;
		expect(size < BUFFER_BYTES / 2, "BYTES is too much");
		if (*what == 'r') {
			behind = argument(6, argc, argv);
			pids++;
			expect(behind < PAGE_BYTES, "BEHIND is a page or more");
			time_operations(ordered(address, ECHO, size, behind), echo, size, count, behind);
		} else {
			time_operations(connected(address), get, size, count, behind);
		}
	} else {
		expect(0, "no such command; see the top of load.c");
	}
	return 0;
}
