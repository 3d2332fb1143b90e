// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

/* Whole requests in `text` are answered, one behind the other; `filled` bytes of the first one are there. */
static void serve_http(int socket, char *text, size_t filled)
{
	char head[128];

	for (;;) {
		ssize_t got;
		size_t size;

		text[filled] = 0;
		if (strstr(text, "\r\n\r\n")) {
			expect(sscanf(text, "GET /%zu ", &size) == 1 && size + sizeof(head) < BUFFER_BYTES,
			       "a strange path");
			filled = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
			memcpy(text, head, filled);
			memset(text + filled, 'x', size);
			if (!write_all(socket, text, filled + size))
				return;
			filled = 0;
			continue;
		}
		got = read_some(socket, text + filled, READ_BYTES - filled - 1);
		if (got <= 0)
			return;
		filled += got;
	}
}

static void *serve_one(void *argument)
{
	int socket = (int)(intptr_t)argument;
	char *allocated = buffer(), *bytes = allocated;
	struct order order;
	uint64_t total = 0;
	ssize_t got;

	if (!read_all(socket, bytes, 4))
		goto out;
	if (!memcmp(bytes, "GET ", 4)) {
		serve_http(socket, bytes, 4);
		goto out;
	}
	if (!read_all(socket, bytes + 4, sizeof(order) - 4))
		goto out;
	memcpy(&order, bytes, sizeof(order));
	bytes += order.behind % PAGE_BYTES;
	if (order.kind == HOLD)
		pause();
	if (order.kind == SINK) {
		sleep_msec(order.number);
		while ((got = read_some(socket, bytes, READ_BYTES)) > 0)
			total += got;
		write_all(socket, &total, sizeof(total));
	}
	while (order.kind == ECHO && read_all(socket, bytes, order.number))
		if (!write_all(socket, bytes, order.number))
			break;
out:
	free(allocated);
	close(socket);
	return NULL;
}

void serve(char **address, int close_at_once)
{
	int listener = listening(address);
	pthread_t thread;

	puts("ready");
	fflush(stdout);
	for (;;) {
		int accepted = accept(listener, NULL, NULL);

		if (accepted < 0)
			continue;
		if (close_at_once)
			close(accepted);
		else if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)accepted))
			die("pthread_create");
		else
			pthread_detach(thread);
	}
}
