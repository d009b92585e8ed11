/* nearest.h - the word that a misspelt one was probably meant to be.  Any thread. */
#ifndef HOST_BASE_NEAREST_H
#define HOST_BASE_NEAREST_H

/* The edit distance of two words, at most 255. */
unsigned nearest_distance(const char *a, const char *b);

#endif
