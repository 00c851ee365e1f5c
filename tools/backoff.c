#include "tools/backoff.h"

#define FIRST_MS 1000
#define MAX_MS	 30000

int pgr_backoff_ms(unsigned failures, uint16_t dice)
{
	int base = failures < PGR_BACKOFF_MAX ? FIRST_MS << failures : MAX_MS;

	return base - base / 4 + (int)((int64_t)base * dice / (2 * UINT16_MAX));
}
