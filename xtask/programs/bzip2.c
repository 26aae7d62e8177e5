/* Compresses and expands 9 MB of text that it makes, compares, and prints the sizes. */
#include "bzlib.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 9000000 };

void bz_internal_error(int code) {
    fprintf(stderr, "bzip2: internal error %d\n", code);
    exit(2);
}

int main(void) {
    unsigned packed_bytes = BYTES + BYTES / 50 + 600, back_bytes = BYTES, seed = 1;
    char *text = malloc(BYTES), *packed = malloc(packed_bytes), *back = malloc(BYTES);
    if (!text || !packed || !back)
        return 2;
    for (int at = 0; at < BYTES; at++) {
        seed = seed * 1664525 + 1013904223;
        text[at] = at % 7 && seed >> 30 ? text[at - at % 7] + at % 5 : 'a' + (seed >> 24) % 26;
    }
    if (BZ2_bzBuffToBuffCompress(packed, &packed_bytes, text, BYTES, 9, 0, 0))
        return 3;
    if (BZ2_bzBuffToBuffDecompress(back, &back_bytes, packed, packed_bytes, 0, 0))
        return 4;
    if (back_bytes != BYTES || memcmp(text, back, BYTES))
        return 5;
    printf("%d bytes, %u packed\n", BYTES, packed_bytes);
    return 0;
}
