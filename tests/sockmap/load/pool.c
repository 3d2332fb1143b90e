// SPDX-License-Identifier: Apache-2.0
/* What every connection says: a stretch of random bytes of its own for each side, and the order of events. */
#define _GNU_SOURCE
#include "load.h"
#include <err.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned char *pool; /* twice, so that a stretch never wraps */
static int file;

uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void pool_fill(void)
{
	uint64_t state = settings.seed, word;

	file = memfd_create("pool", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, 2 * POOL_BYTES))
		err(2, "memfd");
	pool = mmap(NULL, 2 * POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (pool == MAP_FAILED)
		err(2, "mmap");
	for (unsigned at = 0; at < POOL_BYTES; at += sizeof(word)) {
		word = random_next(&state);
		memcpy(pool + at, &word, sizeof(word));
		memcpy(pool + POOL_BYTES + at, &word, sizeof(word));
	}
}

int pool_file(void)
{
	return file;
}

uint64_t pool_place(const struct script *script, enum side side, uint64_t offset)
{
	return (script->base[side] + offset) % POOL_BYTES;
}

const unsigned char *pool_at(const struct script *script, enum side side, uint64_t offset)
{
	return pool + pool_place(script, side, offset);
}

/* Small ones are as frequent as large ones. */
static uint64_t some_bytes(uint64_t *random, unsigned most)
{
	unsigned bits = 1 + random_next(random) % (32 - __builtin_clz(most));

	return 1 + random_next(random) % (1u << bits) % most;
}

static enum kind some_kind(uint64_t *random)
{
	static const unsigned char percent[] = {62, 9, 9, 6, 6, 4, 4};
	unsigned left = random_next(random) % 100;
	enum kind kind = ROUNDS;

	while (left >= percent[kind])
		left -= percent[kind++];
	return kind;
}

void script_of(struct script *script, uint64_t number)
{
	uint64_t random = settings.seed ^ number * 0xd1342543de82ef95u, place[2] = {sizeof(struct header), 0};
	bool bulk;

	memset(script, 0, sizeof(*script));
	script->number = number;
	script->kind = some_kind(&random);
	script->destination = random_next(&random) % settings.destinations;
	script->closer = random_next(&random) & 1;
	script->rounds = script->kind == ROUNDS ? 1 + random_next(&random) % MAX_ROUNDS : 1;
	script->in_flight = 1 + random_next(&random) % 3;
	bulk = script->kind != ROUNDS;
	for (unsigned round = 0; round < script->rounds; round++) {
		bool up = bulk && script->kind != DOWN, down = bulk && script->kind != UP;

		place[CLIENT] += some_bytes(&random, up ? settings.bulk_bytes : settings.max_bytes);
		place[SERVER] += some_bytes(&random, down ? settings.bulk_bytes : settings.max_bytes);
		script->end_of[CLIENT][round] = place[CLIENT];
		script->end_of[SERVER][round] = place[SERVER];
	}
	script->cut = some_bytes(&random, settings.bulk_bytes);
	if (script->closer == CLIENT)
		script->cut += sizeof(struct header);
	for (enum side side = CLIENT; side <= SERVER; side++) {
		script->base[side] = random_next(&random) % POOL_BYTES;
		if (random_next(&random) % 100 < settings.slow_percent)
			script->nap_ms[side] = 1 + random_next(&random) % 40;
	}
}
