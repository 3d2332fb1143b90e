// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "wire.h"

void die(const char *what)
{
	perror(what);
	exit(1);
}

void expect(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "load: %s\n", what);
	exit(1);
}

uint64_t nsec(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		die("clock_gettime");
	return now.tv_sec * 1000 * NSEC_PER_MSEC + now.tv_nsec;
}

void sleep_msec(uint64_t msec)
{
	struct timespec time = {msec / 1000, msec % 1000 * NSEC_PER_MSEC};

	nanosleep(&time, NULL);
}

/* A blocking socket that was redirected to can answer EAGAIN once its own direction is shut. */
ssize_t read_some(int socket, void *into, size_t room)
{
	for (;;) {
		ssize_t got = recv(socket, into, room, 0);
		struct pollfd readable = {.fd = socket, .events = POLLIN};

		if (got >= 0 || (errno != EAGAIN && errno != EINTR))
			return got;
		poll(&readable, 1, -1);
	}
}

int read_all(int socket, void *into, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = read_some(socket, (char *)into + at, size - at);

		if (got <= 0)
			return 0;
		at += got;
	}
	return 1;
}

int write_all(int socket, const void *from, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t put = send(socket, (const char *)from + at, size - at, MSG_NOSIGNAL);

		if (put <= 0)
			return 0;
		at += put;
	}
	return 1;
}

char *buffer(void)
{
	char *made = aligned_alloc(PAGE_BYTES, BUFFER_BYTES);

	if (!made)
		die("aligned_alloc");
	memset(made, 'x', BUFFER_BYTES);
	return made;
}

static int new_socket(char **address, struct addrinfo **found)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	int one = 1, made;

	expect(!getaddrinfo(address[0], address[1], &hints, found), "ADDRESS and PORT must be numbers");
	made = socket((*found)->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (made < 0 || setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
		die("socket");
	/* Accepted sockets inherit it. */
	if (setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("TCP_NODELAY");
	return made;
}

int listening(char **address)
{
	struct addrinfo *found;
	int made = new_socket(address, &found);

	if (bind(made, found->ai_addr, found->ai_addrlen) || listen(made, SOMAXCONN))
		die("listen");
	freeaddrinfo(found);
	return made;
}

int connected(char **address)
{
	struct addrinfo *found;
	int made = new_socket(address, &found);

	if (connect(made, found->ai_addr, found->ai_addrlen))
		die("connect");
	freeaddrinfo(found);
	return made;
}
