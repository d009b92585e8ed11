/* unit.h - a test runner of a few lines: each file has one function with its checks,
 * listed in main.c.  A check that fails says where, and the program goes on. */
#ifndef SPEC_UNIT_H
#define SPEC_UNIT_H

#include <stdbool.h>

/* Counts a check, and complains unless ok. */
void unit_check(bool ok, const char *text, const char *file, int line);

#define CHECK(condition) unit_check((condition), #condition, __FILE__, __LINE__)

void test_addr(void);
void test_beneath(void);
void test_buf(void);
void test_busy(void);
void test_heap(void);
void test_journal(void);
void test_json(void);
void test_list(void);
void test_listen(void);
void test_log(void);
void test_loop(void);
void test_nearest(void);
void test_packsize(void);
void test_plain(void);
void test_pattern(void);
void test_pool(void);
void test_roster(void);
void test_script(void);
void test_signals(void);
void test_uring(void);
void test_watch(void);

#endif
