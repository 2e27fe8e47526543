/* clock: monotonic time for durations, wall time for stamps. */
#ifndef MYSTI_BASE_CLOCK_H
#define MYSTI_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ns(void);     /* monotonic */
uint64_t clock_ms(void);     /* monotonic */
int64_t clock_unix(void);    /* seconds since 1970 */
int64_t clock_unix_us(void); /* microseconds since 1970 */

#endif
