/* Fills a table of 200,000 rows in a file, indexes it, and prints what three questions give. */
#include "sqlite3.h"
#include <stdio.h>

static int print(void *none, int columns, char **values, char **names) {
    (void)none, (void)names;
    for (int at = 0; at < columns; at++)
        printf("%s%s", at ? "|" : "", values[at] ? values[at] : "");
    putchar('\n');
    return 0;
}

int main(void) {
    static const char *const SQL =
        "create table rows (id integer primary key, name text, amount integer);"
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)"
        "  insert into rows select i, 'name ' || (i * 7919 % 100003), i * 104729 % 1000003 from n;"
        "create index by_name on rows (name);"
        "select count(*), sum(amount) from rows;"
        "select name, amount from rows where name between 'name 500' and 'name 5001' order by name, id;"
        "select amount / 100000 as part, count(*) from rows group by part order by part;";
    sqlite3 *file;
    char *why = NULL;
    if (sqlite3_open("/tmp/rows", &file))
        return 2;
    if (sqlite3_exec(file, SQL, print, NULL, &why)) {
        fprintf(stderr, "sqlite: %s\n", why);
        return 3;
    }
    return sqlite3_close(file);
}
