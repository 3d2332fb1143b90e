// SPDX-License-Identifier: Apache-2.0
/* What client and server share: the order that opens a connection, whole reads and writes, clocks. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define BUFFER_BYTES (2 << 20)
#define READ_BYTES (256 << 10)
#define PAGE_BYTES 4096
#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull

/* What a client says first; anything else must be the "GET " of HTTP. */
enum kind {
	ECHO = 1,
	SINK = 2,
	HOLD = 3
};
struct order {
	uint32_t kind;
	uint32_t number; /* ECHO: bytes of a request; SINK: milliseconds before the first read */
	uint32_t behind; /* bytes from a page's beginning to where the server puts what it reads; less than a page */
};

/* Both end the process; `expect` when it does not hold. */
void die(const char *what);
void expect(int holds, const char *what);

uint64_t nsec(clockid_t clock);
void sleep_msec(uint64_t msec);

/* As recv() and send(), but wait for the first byte in any case; 0 or less when nothing more comes. */
ssize_t read_some(int socket, void *into, size_t room);
/* False when the other end hung up. */
int read_all(int socket, void *into, size_t size);
int write_all(int socket, const void *from, size_t size);

/*
 * Memory of BUFFER_BYTES that is really there, from a page's beginning. Processors with "fast short rep mov" may copy
 * 25 times slower to a place that lies, counted within a page, 1 to 31 bytes behind what is copied. The kernel keeps
 * what a large write brought from a page's beginning, too, and malloc() gives out large buffers 16 bytes behind one, so
 * that such copies would be most of what a flow takes, by whichever way it goes.
 */
char *buffer(void);

/* Address and port are two numbers in words; the socket is bound to them or connected to them. */
int listening(char **address);
int connected(char **address);

/* Answers on ADDRESS PORT for ever, or closes at once what it accepts. */
void serve(char **address, int close_at_once) __attribute__((noreturn));

#endif
