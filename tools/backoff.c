#include "tools/backoff.h"

#include <sys/random.h>

#define FIRST_MS 1000
#define MAX_MS	 30000

int pgr_backoff_ms(unsigned failures, uint16_t dice)
{
	int base = failures < PGR_BACKOFF_MAX ? FIRST_MS << failures : MAX_MS;

	return base - base / 4 + (int)((int64_t)base * dice / (2 * UINT16_MAX));
}

int pgr_backoff_draw_ms(unsigned failures)
{
	uint16_t dice = 0;

	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) != (ssize_t)sizeof(dice))
		dice = UINT16_MAX / 2;
	return pgr_backoff_ms(failures, dice);
}

int pgr_backoff_seconds(int ms)
{
	return ms < 1500 ? 1 : (ms + 500) / 1000;
}
