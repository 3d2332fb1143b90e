// SPDX-License-Identifier: Apache-2.0
/* Sockets in the namespaces of both sides, and source ports that are used towards all destinations at once. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ORIGINAL_DST 80 /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST */
#define TRIES 16

void enter(const char *netns)
{
	int fd;

	if (!netns)
		return;
	fd = open(netns, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(2, "%s", netns);
	close(fd);
}

struct sockaddr_storage address_of(const char *text, unsigned port)
{
	struct sockaddr_storage found = {0};
	struct sockaddr_in6 *six = (void *)&found;
	struct sockaddr_in *four = (void *)&found;

	if (strchr(text, ':')) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1)
			return found;
	} else {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		if (inet_pton(AF_INET, text, &four->sin_addr) == 1)
			return found;
	}
	errx(2, "%s is no address", text);
}

socklen_t address_length(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

unsigned port_of(const struct sockaddr_storage *address)
{
	/* At the same place in both families. */
	return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

int listen_at(const struct sockaddr_storage *where)
{
	int fd = socket(where->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)))
		err(2, "socket");
	if (settings.transparent && setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &yes, sizeof(yes)))
		err(2, "IP_TRANSPARENT");
	if (bind(fd, (const void *)where, address_length(where)) || listen(fd, 4096))
		err(2, "listen");
	return fd;
}

/* Port 0 is one of the kernel's choice. */
static int try_to_connect(const struct script *script, unsigned port, bool waits)
{
	const struct sockaddr_storage *to = &settings.destination[script->destination];
	struct sockaddr_storage from = settings.source;
	int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK), 0);
	int shared = port && settings.ports;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &shared, sizeof(shared)))
		err(2, "socket");
	((struct sockaddr_in *)&from)->sin_port = htons(port);
	if (!bind(fd, (void *)&from, address_length(&from)) &&
	    (!connect(fd, (const void *)to, address_length(to)) || errno == EINPROGRESS)) {
		if (!waits || !fcntl(fd, F_SETFL, O_NONBLOCK))
			return fd;
	}
	if (errno != EADDRINUSE && errno != EADDRNOTAVAIL)
		err(2, "connect");
	close(fd);
	return -1;
}

/*
 * From one of the few ports that all connections share, or from any when those are taken for this destination. Without
 * such ports each connection has one that no other ever has: the kernel would give one away again as soon as both sides
 * have ended the connection, though not all of it is read.
 */
int connect_to(const struct script *script, uint64_t *random, unsigned *source_port)
{
	static unsigned own_ports;
	struct sockaddr_storage mine;
	socklen_t size = sizeof(mine);
	int fd = -1;

	for (int i = 0; i < TRIES && fd < 0; i++) {
		unsigned place = settings.ports ? random_next(random) % settings.ports : own_ports++;

		if (settings.first_port + place > UINT16_MAX)
			errx(2, "more connections than there are ports");
		fd = try_to_connect(script, settings.first_port + place, random_next(random) & 1);
		if (fd >= 0 && settings.ports)
			figures.reused++;
	}
	if (fd < 0 && settings.ports)
		fd = try_to_connect(script, 0, true);
	if (fd < 0 || getsockname(fd, (void *)&mine, &size))
		err(2, "no port is left");
	*source_port = port_of(&mine);
	return fd;
}

/* Which destination the client wanted before its packets were redirected; -1: none of them. */
int original_destination(int fd)
{
	struct sockaddr_storage found;
	socklen_t size = sizeof(found);
	bool six = settings.destination[0].ss_family == AF_INET6;

	if (settings.transparent ? getsockname(fd, (void *)&found, &size)
				 : getsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, ORIGINAL_DST, &found, &size))
		return -1;
	for (unsigned i = 0; i < settings.destinations; i++) {
		if (port_of(&found) != port_of(&settings.destination[i]))
			continue;
		if (six ? !memcmp(&((struct sockaddr_in6 *)&found)->sin6_addr,
				  &((struct sockaddr_in6 *)&settings.destination[i])->sin6_addr, 16)
			: ((struct sockaddr_in *)&found)->sin_addr.s_addr ==
				    ((struct sockaddr_in *)&settings.destination[i])->sin_addr.s_addr)
			return i;
	}
	return -1;
}
