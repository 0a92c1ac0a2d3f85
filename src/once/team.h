/* How many threads a parallel region can have. To be written: probes. */
#ifndef CYROIALIGN_TEAM_H
#define CYROIALIGN_TEAM_H
static inline int threads_to_be_had(int wanted) { return wanted; }
#endif
