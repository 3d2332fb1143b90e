// SPDX-License-Identifier: Apache-2.0
/*
 * Connections by the thousand, every byte of which is known beforehand to both ends: what a connection does follows
 * from its number and the seed alone, so the ends share nothing but their connection, and whatever arrives at the wrong
 * place is seen there.
 */
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_ROUNDS 32
#define MAX_DESTINATIONS 64
#define POOL_BYTES (1u << 21)
#define MAGIC 0x62797061u

enum side {
	CLIENT,
	SERVER
};

static inline enum side other(enum side side)
{
	return side == CLIENT ? SERVER : CLIENT;
}

enum kind {
	ROUNDS,	    /* requests and answers, some of them in flight at once */
	UP,	    /* one long request */
	DOWN,	    /* one long answer */
	DUPLEX,	    /* both at once */
	HALF_CLOSE, /* the client ends its side at once, the server answers when it has seen that */
	EARLY,	    /* one side closes without reading on */
	RESET,	    /* the same with SO_LINGER 0 */
};

/* The first bytes of a client. */
struct header {
	uint32_t magic;
	uint32_t source_port;
	uint64_t number;
};

struct script {
	uint64_t number;
	enum kind kind;
	enum side closer;   /* of EARLY and RESET */
	uint64_t cut;	    /* after so many bytes sent */
	unsigned in_flight; /* requests at once */
	unsigned rounds;
	unsigned destination;
	uint64_t end_of[2][MAX_ROUNDS]; /* where a request and an answer end in what its side sends */
	uint64_t base[2];		/* where in the pool each side's bytes begin */
	unsigned nap_ms[2];		/* a slow reader's pause; 0: it is not slow */
};

struct settings {
	uint64_t seed;
	uint64_t max_bytes;  /* of a request or answer of ROUNDS */
	uint64_t bulk_bytes; /* at most, of the other kinds */
	uint64_t slow_percent;
	uint64_t hang_ms; /* a connection without any progress for so long hangs */
	uint64_t first_port, ports;
	uint64_t at_once;
	uint64_t exchanges, bytes; /* how many of both are wanted */
	uint64_t proxy_port;	   /* of one proxy that serves all destinations; 0: they serve themselves */
	bool transparent;	   /* the proxy is led to by TPROXY, so that its sockets have their addresses */
	unsigned destinations;
	struct sockaddr_storage destination[MAX_DESTINATIONS];
	struct sockaddr_storage source;
	const char *client_netns, *server_netns, *listen;
};

struct figures {
	atomic_ulong exchanges, bytes, connections, reused, wrong, hung, failed;
};

/* One socket. */
struct end {
	struct script script;
	struct header header;
	enum side side;
	unsigned destination; /* of a server's listener */
	int fd, pipe[2];
	unsigned in_pipe; /* bytes on their way through it */
	uint64_t sent, received, since_nap;
	uint64_t asleep_until_ms, progress_ms;
	uint64_t random;
	unsigned send_style, receive_style;
	bool begun, readable, writable, ended, shut; /* ended: the other side will send no more */
};

extern struct settings settings;
extern struct figures figures;

/* pool.c */
void pool_fill(void);
const unsigned char *pool_at(const struct script *script, enum side side, uint64_t offset);
uint64_t pool_place(const struct script *script, enum side side, uint64_t offset);
int pool_file(void);
uint64_t random_next(uint64_t *state);
void script_of(struct script *script, uint64_t number);

/* end.c */
enum work {
	OVER,
	IDLE,
	BUSY
};

struct end *end_new(int fd, enum side side, unsigned destination);
void end_begin(struct end *end, const struct script *script, unsigned source_port);
void end_ready(struct end *end, unsigned events);
enum work end_work(struct end *end, uint64_t now_ms); /* OVER: it is closed and freed */
uint64_t now_ms(void);

/* transfer.c: both say how many bytes went, 0 for none now, -1 with errno */
ssize_t transfer_send(struct end *end, uint64_t most);
ssize_t transfer_receive(struct end *end, uint64_t most);

/* sockets.c */
void enter(const char *netns);
int listen_at(const struct sockaddr_storage *where);
int connect_to(const struct script *script, uint64_t *random, unsigned *source_port);
int original_destination(int fd);
struct sockaddr_storage address_of(const char *text, unsigned port);
socklen_t address_length(const struct sockaddr_storage *address);
unsigned port_of(const struct sockaddr_storage *address);

#endif
