/* Functions that have no safe use here. Included on the command line for our own code,
 * so that using one does not compile; each has a better one in base/. */
#ifndef MYSTI_BASE_BANNED_H
#define MYSTI_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GNUC__) && !defined(__cplusplus)
#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol gets
#endif

#endif
