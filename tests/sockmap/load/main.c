// SPDX-License-Identifier: Apache-2.0
/*
 * exchange: connections between two network namespaces, opened from a few source ports while others are at work.
 * One thread has all clients, another all servers. Prints its figures as JSON; status 1 when anything was wrong.
 */
#define _GNU_SOURCE
#include "load.h"
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_ENDS 8192
#define EVENTS 256

struct settings settings = {
	.seed = 1,
	.max_bytes = 65536,
	.bulk_bytes = 4 << 20,
	.slow_percent = 3,
	.hang_ms = 20000,
	.at_once = 100,
	.exchanges = 10000,
	.first_port = 30000,
	.ports = 40,
};
struct figures figures;
static atomic_bool clients_done;
static int listeners[MAX_DESTINATIONS];

/* The sockets of one thread. */
struct crowd {
	int epoll;
	unsigned count;
	struct end *ends[MOST_ENDS];
};

static void watch(struct crowd *crowd, int fd, struct end *end, uint64_t random)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = end};

	/* Most readers are told once only; the others whenever they ask. */
	if (!end || random % 4)
		event.events |= end ? EPOLLET : 0;
	if (!end)
		event.events = EPOLLIN;
	if (epoll_ctl(crowd->epoll, EPOLL_CTL_ADD, fd, &event))
		err(2, "epoll_ctl");
	if (end)
		crowd->ends[crowd->count++] = end;
}

static bool work(struct crowd *crowd)
{
	struct epoll_event events[EVENTS];
	uint64_t now = now_ms();
	bool busy = false;
	int count;

	for (unsigned i = 0; i < crowd->count;) {
		enum work did = end_work(crowd->ends[i], now);

		busy |= did != IDLE;
		if (did == OVER)
			crowd->ends[i] = crowd->ends[--crowd->count];
		else
			i++;
	}
	count = epoll_wait(crowd->epoll, events, EVENTS, busy ? 0 : 2);
	for (int i = 0; i < count; i++)
		if (events[i].data.ptr)
			end_ready(events[i].data.ptr, events[i].events);
	return busy;
}

static void accept_all(struct crowd *crowd, uint64_t *random)
{
	unsigned count = settings.proxy_port ? 1 : settings.destinations;

	for (unsigned i = 0; i < count; i++) {
		int fd, wanted = i;

		while (crowd->count < MOST_ENDS &&
		       (fd = accept4(listeners[i], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
			if (settings.proxy_port)
				wanted = original_destination(fd);
			if (wanted < 0) {
				/* Reset already, and forgotten by conntrack; or else its client will complain. */
				close(fd);
				continue;
			}
			watch(crowd, fd, end_new(fd, SERVER, wanted), random_next(random));
		}
	}
}

static void *serve(void *arg)
{
	static struct crowd crowd;
	uint64_t random = settings.seed;

	(void)arg;
	crowd.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < (settings.proxy_port ? 1 : settings.destinations); i++)
		watch(&crowd, listeners[i], NULL, 0);
	while (!clients_done || crowd.count) {
		accept_all(&crowd, &random);
		work(&crowd);
	}
	return NULL;
}

static void progress(uint64_t *next_ms, uint64_t started_ms, unsigned open)
{
	uint64_t now = now_ms();

	if (now < *next_ms)
		return;
	*next_ms = now + 5000;
	fprintf(stderr,
		"%4lu s: %lu of %lu exchanges, %lu MiB of %lu, %lu connections (%u open), wrong %lu, hung %lu, failed %lu\n",
		(now - started_ms) / 1000, figures.exchanges, settings.exchanges, figures.bytes >> 20,
		settings.bytes >> 20, figures.connections, open, figures.wrong, figures.hung, figures.failed);
}

static void run_clients(void)
{
	static struct crowd crowd;
	uint64_t random = settings.seed + 1, started_ms = now_ms(), next_ms = started_ms + 5000;

	crowd.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (;;) {
		bool more = figures.exchanges < settings.exchanges || figures.bytes < settings.bytes;

		/* Spread out, so that connections are opened while others have bytes on their way. */
		for (int i = 0; more && i < 8 && crowd.count < settings.at_once; i++) {
			struct script script;
			struct end *end;
			unsigned port;
			int fd;

			script_of(&script, ++figures.connections);
			fd = connect_to(&script, &random, &port);
			end = end_new(fd, CLIENT, script.destination);
			end_begin(end, &script, port);
			watch(&crowd, fd, end, random_next(&random));
		}
		if (!more && !crowd.count)
			break;
		work(&crowd);
		progress(&next_ms, started_ms, crowd.count);
	}
	clients_done = true;
}

static void add_destination(const char *text)
{
	const char *at = strchr(text, '@');
	char *address = at ? strndup(text, at - text) : NULL;

	if (!address || settings.destinations == MAX_DESTINATIONS)
		errx(2, "a destination is ADDRESS@PORT, at most %d of them", MAX_DESTINATIONS);
	settings.destination[settings.destinations++] = address_of(address, atoi(at + 1));
	free(address);
}

static const struct {
	char letter;
	uint64_t *number;
} numbers[] = {
	{'r', &settings.proxy_port}, {'p', &settings.first_port}, {'P', &settings.ports},
	{'n', &settings.at_once},    {'e', &settings.exchanges},  {'b', &settings.bytes},
	{'m', &settings.max_bytes},  {'B', &settings.bulk_bytes}, {'w', &settings.slow_percent},
	{'h', &settings.hang_ms},    {'S', &settings.seed},
};

static bool read_number(int option)
{
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		if (numbers[i].letter == option) {
			*numbers[i].number = strtoull(optarg, NULL, 0);
			return true;
		}
	}
	return false;
}

static void read_settings(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "c:s:a:d:l:tr:p:P:n:e:b:m:B:w:h:S:")) != -1) {
		if (option == 'c')
			settings.client_netns = optarg;
		else if (option == 's')
			settings.server_netns = optarg;
		else if (option == 'a')
			settings.source = address_of(optarg, 0);
		else if (option == 'd')
			add_destination(optarg);
		else if (option == 'l')
			settings.listen = optarg;
		else if (option == 't')
			settings.transparent = true;
		else if (!read_number(option))
			errx(2, "see read_settings() in %s for the options", __FILE__);
	}
	if (!settings.destinations || !settings.source.ss_family)
		errx(2, "-a source and -d destination are needed");
}

static void listen_everywhere(void)
{
	unsigned count = settings.proxy_port ? 1 : settings.destinations;

	for (unsigned i = 0; i < count; i++) {
		unsigned port = settings.proxy_port ? settings.proxy_port : port_of(&settings.destination[i]);
		struct sockaddr_storage where = settings.destination[i];

		if (settings.listen)
			where = address_of(settings.listen, port);
		listeners[i] = listen_at(&where);
	}
}

int main(int argc, char **argv)
{
	pthread_t server;

	signal(SIGPIPE, SIG_IGN);
	read_settings(argc, argv);
	pool_fill();
	enter(settings.server_netns);
	listen_everywhere();
	if (pthread_create(&server, NULL, serve, NULL))
		err(2, "pthread_create");
	enter(settings.client_netns);
	run_clients();
	pthread_join(server, NULL);
	printf("{\"exchanges\": %lu, \"bytes\": %lu, \"connections\": %lu, \"reused\": %lu, \"wrong\": %lu, \"hung\": %lu, \"failed\": %lu}\n",
	       figures.exchanges, figures.bytes, figures.connections, figures.reused, figures.wrong, figures.hung,
	       figures.failed);
	return figures.wrong || figures.hung || figures.failed;
}
