/* Compresses and expands 32 MB of text that it makes, compares, and prints the sizes. */
#include "zstd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 32000000, LEVEL = 9 };

int main(void) {
    size_t room = ZSTD_compressBound(BYTES);
    unsigned seed = 1;
    char *text = malloc(BYTES), *packed = malloc(room), *back = malloc(BYTES);
    if (!text || !packed || !back)
        return 2;
    for (int at = 0; at < BYTES; at++) {
        seed = seed * 1664525 + 1013904223;
        text[at] = at % 7 && seed >> 30 ? text[at - at % 7] + at % 5 : 'a' + (seed >> 24) % 26;
    }
    size_t packed_bytes = ZSTD_compress(packed, room, text, BYTES, LEVEL);
    if (ZSTD_isError(packed_bytes))
        return 3;
    if (ZSTD_decompress(back, BYTES, packed, packed_bytes) != BYTES || memcmp(text, back, BYTES))
        return 4;
    printf("%d bytes, %zu packed\n", BYTES, packed_bytes);
    return 0;
}
