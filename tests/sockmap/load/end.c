// SPDX-License-Identifier: Apache-2.0
/* One socket's part in its connection: what it may send when, what must come, and how it ends. */
#define _GNU_SOURCE
#include "load.h"
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAP_BYTES 65536

static const char *const kinds[] = {"rounds", "up", "down", "duplex", "half-close", "early", "reset"};

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

struct end *end_new(int fd, enum side side, unsigned destination)
{
	struct end *end = calloc(1, sizeof(*end));

	if (!end)
		err(2, "memory");
	end->fd = fd;
	end->side = side;
	end->destination = destination;
	end->pipe[0] = end->pipe[1] = -1;
	end->progress_ms = now_ms();
	return end;
}

void end_begin(struct end *end, const struct script *script, unsigned source_port)
{
	end->script = *script;
	end->header = (struct header){MAGIC, source_port, script->number};
	end->random = script->number * 2 + end->side;
	end->send_style = random_next(&end->random) % 5;
	end->receive_style = random_next(&end->random) % 4;
	end->begun = true;
}

void end_ready(struct end *end, unsigned events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		end->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		end->writable = true;
}

static uint64_t whole(const struct end *end, enum side side)
{
	return end->script.end_of[side][end->script.rounds - 1];
}

static bool is_cut(const struct end *end)
{
	return end->script.kind == EARLY || end->script.kind == RESET;
}

static bool closes_early(const struct end *end)
{
	return is_cut(end) && end->script.closer == end->side;
}

static unsigned rounds_come(const struct end *end)
{
	unsigned round = 0;

	while (round < end->script.rounds && end->script.end_of[other(end->side)][round] <= end->received)
		round++;
	return round;
}

/* Up to where this side may send by now. */
static uint64_t may_send(const struct end *end)
{
	const struct script *script = &end->script;
	uint64_t all = whole(end, end->side);
	unsigned come = rounds_come(end);

	if (closes_early(end) && script->cut < all)
		all = script->cut;
	if (is_cut(end) || script->kind == DUPLEX)
		return all;
	if (end->side == SERVER) {
		if (script->kind == HALF_CLOSE)
			return end->ended ? all : 0;
		return come ? script->end_of[SERVER][come - 1] : 0;
	}
	come += script->in_flight;
	return script->end_of[CLIENT][(come < script->rounds ? come : script->rounds) - 1];
}

static enum work finish(struct end *end, const char *wrong, atomic_ulong *count)
{
	struct linger reset = {1, 0};

	if (wrong) {
		(*count)++;
		fprintf(stderr, "%s of connection %lu (%s): %s, sent %lu of %lu, received %lu of %lu\n",
			end->side == CLIENT ? "client" : "server", end->script.number,
			end->begun ? kinds[end->script.kind] : "unknown", wrong, end->sent,
			end->begun ? whole(end, end->side) : 0, end->received,
			end->begun ? whole(end, other(end->side)) : 0);
	}
	if (closes_early(end) && end->script.kind == RESET)
		setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(end->fd);
	if (end->pipe[0] >= 0) {
		close(end->pipe[0]);
		close(end->pipe[1]);
	}
	free(end);
	return OVER;
}

/* An error from the socket: the other side's early close, or a loss. */
static enum work broken(struct end *end)
{
	static _Thread_local char text[64];
	bool wrong = errno == EBADMSG;

	if (!wrong && end->begun && is_cut(end))
		return finish(end, NULL, NULL);
	/* A reset may take the first bytes with it. */
	if (!wrong && !end->begun)
		return finish(end, NULL, NULL);
	snprintf(text, sizeof(text), "%s", wrong ? "WRONG BYTES" : strerror(errno));
	return finish(end, text, wrong ? &figures.wrong : &figures.failed);
}

/* The first bytes that a server reads tell it which connection this is. */
static enum work meet(struct end *end)
{
	ssize_t came = recv(end->fd, (char *)&end->header + end->received, sizeof(end->header) - end->received, 0);
	struct script script;

	if (came < 0 && errno == EAGAIN)
		return IDLE;
	if (came <= 0)
		return broken(end);
	end->received += came;
	if (end->received < sizeof(end->header))
		return BUSY;
	script_of(&script, end->header.number);
	if (end->header.magic != MAGIC || script.destination != end->destination)
		return finish(end, "A STRANGER'S HEADER", &figures.wrong);
	end_begin(end, &script, end->header.source_port);
	return BUSY;
}

static enum work receive(struct end *end, uint64_t now)
{
	unsigned before = end->side == CLIENT ? rounds_come(end) : 0;
	ssize_t came = transfer_receive(end, whole(end, other(end->side)) - end->received);

	if (came < 0)
		return broken(end);
	if (!came && !end->ended) {
		end->readable = false;
		return IDLE;
	}
	figures.bytes += came;
	if (end->side == CLIENT)
		figures.exchanges += rounds_come(end) - before;
	if (end->script.nap_ms[end->side] && end->since_nap >= NAP_BYTES) {
		end->since_nap = 0;
		end->asleep_until_ms = now + end->script.nap_ms[end->side];
	}
	return BUSY;
}

/* What is to be done when nothing may be sent. */
static enum work conclude(struct end *end)
{
	bool sent_all = end->sent == whole(end, end->side), come_all = end->received == whole(end, other(end->side));

	if (closes_early(end) && (sent_all || end->sent >= end->script.cut))
		return finish(end, NULL, NULL);
	if (end->ended && is_cut(end))
		return finish(end, NULL, NULL);
	if (end->ended && !come_all)
		return finish(end, "THE END CAME EARLY", &figures.wrong);
	if (end->ended && sent_all)
		return finish(end, NULL, NULL);
	if (end->side == CLIENT && !end->shut && sent_all && (come_all || end->script.kind == HALF_CLOSE)) {
		shutdown(end->fd, SHUT_WR);
		end->shut = true;
		return BUSY;
	}
	return IDLE;
}

static enum work send_some(struct end *end)
{
	uint64_t limit = may_send(end);
	ssize_t went;

	if (end->sent >= limit && !end->in_pipe)
		return conclude(end);
	if (!end->writable)
		return IDLE;
	went = transfer_send(end, limit - end->sent);
	if (went < 0)
		return broken(end);
	end->writable = went > 0;
	return went ? BUSY : IDLE;
}

enum work end_work(struct end *end, uint64_t now)
{
	bool receives = end->readable && !end->ended && now >= end->asleep_until_ms;
	enum work did = IDLE;

	if (end->asleep_until_ms > now)
		end->progress_ms = now;
	if (receives)
		did = end->begun ? receive(end, now) : meet(end);
	if (did != OVER && end->begun) {
		enum work sent = send_some(end);

		did = sent == IDLE ? did : sent;
	}
	if (did == BUSY)
		end->progress_ms = now;
	if (did == IDLE && now - end->progress_ms > settings.hang_ms)
		return finish(end, "HANGS", &figures.hung);
	return did;
}
