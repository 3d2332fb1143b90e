// SPDX-License-Identifier: Apache-2.0
/* The many ways to send and to receive, and the comparison of every byte that came. */
#define _GNU_SOURCE
#include "load.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define LARGE (1u << 18)
#define HEADER sizeof(struct header)

enum {
	SEND,
	SEND_MORE,
	SEND_PIECES,
	SENDFILE,
	SPLICE,
	SEND_STYLES
};
enum {
	RECEIVE,
	RECEIVE_SMALL,
	RECEIVE_PIECES,
	PEEK,
	RECEIVE_STYLES
};

/* Through a pipe: what did not fit into the socket stays in it for the next time. */
static ssize_t send_spliced(struct end *end, uint64_t bytes)
{
	loff_t from = pool_place(&end->script, end->side, end->sent);
	ssize_t moved;

	if (end->pipe[0] < 0 && pipe2(end->pipe, O_CLOEXEC | O_NONBLOCK))
		return -1;
	if (!end->in_pipe) {
		moved = splice(pool_file(), &from, end->pipe[1], NULL, bytes, SPLICE_F_NONBLOCK);
		if (moved < 0)
			return -1;
		end->in_pipe = moved;
	}
	moved = splice(end->pipe[0], NULL, end->fd, NULL, end->in_pipe, SPLICE_F_NONBLOCK);
	if (moved > 0)
		end->in_pipe -= moved;
	return moved;
}

static ssize_t send_pieces(struct end *end, const unsigned char *data, uint64_t bytes)
{
	struct iovec pieces[3] = {
		{(void *)data, bytes / 3},
		{(void *)(data + bytes / 3), bytes / 7},
		{(void *)(data + bytes / 3 + bytes / 7), bytes - bytes / 3 - bytes / 7},
	};
	struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 3};

	return sendmsg(end->fd, &message, MSG_NOSIGNAL);
}

static ssize_t send_header(struct end *end)
{
	return send(end->fd, (char *)&end->header + end->sent, HEADER - end->sent, MSG_NOSIGNAL);
}

ssize_t transfer_send(struct end *end, uint64_t most)
{
	const unsigned char *data = pool_at(&end->script, end->side, end->sent);
	uint64_t bytes = 1 + random_next(&end->random) % LARGE;
	loff_t from = pool_place(&end->script, end->side, end->sent);
	ssize_t went;

	if (bytes > most)
		bytes = most;
	if (end->side == CLIENT && end->sent < HEADER)
		went = send_header(end);
	else if (end->in_pipe || end->send_style == SPLICE)
		went = send_spliced(end, bytes);
	else if (end->send_style == SENDFILE)
		went = sendfile(end->fd, pool_file(), &from, bytes);
	else if (end->send_style == SEND_PIECES)
		went = send_pieces(end, data, bytes);
	else
		went = send(end->fd, data, bytes,
			    MSG_NOSIGNAL | (end->send_style == SEND_MORE && bytes < most ? MSG_MORE : 0));
	if (went < 0)
		return errno == EAGAIN ? 0 : -1;
	end->sent += went;
	if (random_next(&end->random) % 8 == 0)
		end->send_style = random_next(&end->random) % SEND_STYLES;
	return went;
}

static ssize_t receive_into(struct end *end, unsigned char *data, size_t bytes)
{
	struct iovec pieces[2] = {{data, bytes / 3}, {data + bytes / 3, bytes - bytes / 3}};

	if (end->receive_style == RECEIVE_PIECES)
		return readv(end->fd, pieces, 2);
	return recv(end->fd, data, bytes, 0);
}

/* What is seen first must be what is then read. */
static bool peeks_the_same(struct end *end, const unsigned char *expected, size_t bytes)
{
	static _Thread_local unsigned char seen[LARGE];
	ssize_t there = recv(end->fd, seen, bytes, MSG_PEEK);

	return there <= 0 || !memcmp(seen, expected, there);
}

/* Fails with EBADMSG for a byte too many, or another than is expected; 0 with `ended` set is the end of the stream. */
ssize_t transfer_receive(struct end *end, uint64_t most)
{
	static _Thread_local unsigned char data[LARGE];
	const unsigned char *expected = pool_at(&end->script, other(end->side), end->received);
	size_t bytes = 1 + random_next(&end->random) % LARGE;
	ssize_t came;

	if (end->receive_style == RECEIVE_SMALL)
		bytes = 1 + bytes % 512;
	if (end->receive_style == PEEK && !peeks_the_same(end, expected, bytes < most ? bytes : most)) {
		errno = EBADMSG;
		return -1;
	}
	came = receive_into(end, data, bytes);
	if (came < 0)
		return errno == EAGAIN ? 0 : -1;
	if (!came)
		end->ended = true;
	if ((uint64_t)came > most || memcmp(data, expected, came)) {
		errno = EBADMSG;
		return -1;
	}
	end->received += came;
	end->since_nap += came;
	if (random_next(&end->random) % 8 == 0)
		end->receive_style = random_next(&end->random) % RECEIVE_STYLES;
	return came;
}
