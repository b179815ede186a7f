#include "tests/model/accounts_chooser.hpp"

#include <array>
#include <utility>

namespace tally::test {

namespace {

struct Weighted {
  Change change;
  uint32_t weight;
};

constexpr Weighted weights[] = {
    {Change::create, 26},
    {Change::create_reused, 2},
    {Change::link, 26},
    {Change::unlink, 26},
    {Change::rename, 18},
    {Change::overwrite, 10},
    {Change::exchange, 4},
    {Change::exchange_mixed, 4},
    {Change::exchange_dirs, 3},
    {Change::mkdir, 10},
    {Change::rmdir, 7},
    {Change::remove_behind, 1},
    {Change::move_dir, 12},
    {Change::overwrite_dir, 3},
    {Change::write, 22},
    {Change::truncate, 4},
    {Change::move_blocks, 5},
    {Change::chmod, 4},
    {Change::chmod_dir, 3},
    {Change::set_future, 1},
    {Change::set_future_dir, 1},
    {Change::grow_dir, 2},
    {Change::open, 8},
    {Change::close, 8},
    {Change::write_open, 8},
    {Change::open_nameless, 3},
    {Change::link_open, 5},
    {Change::link_outside, 3},
    {Change::unlink_outside, 3},
    {Change::forget, 10},
    {Change::scan_again, 1},
    {Change::behind_create, 1},
    {Change::behind_link, 1},
    {Change::behind_unlink, 1},
    {Change::behind_rename, 1},
    {Change::behind_write, 1},
    {Change::behind_mkdir, 1},
    {Change::behind_move_dir, 1},
    {Change::behind_remove_dir, 1},
    {Change::behind_link_outside, 1},
    {Change::audit, 12},
};

constexpr uint32_t total_weight = [] {
  uint32_t total = 0;
  for (const Weighted& entry : weights)
    total += entry.weight;
  return total;
}();

/// A scan is dear and hides what is wrong before it.
constexpr uint32_t scans_wanted_per_scan = 10;

}  // namespace

Change AccountsChooser::change(const ModelTree& tree) {
  uint32_t drawn = below(total_weight);
  const Weighted* chosen = weights;
  while (drawn >= chosen->weight)
    drawn -= (chosen++)->weight;
  switch (chosen->change) {
    case Change::create:
    case Change::create_reused:
    case Change::link:
    case Change::link_open:
      return tree.names().size() < limits_.names ? chosen->change : Change::unlink;
    case Change::mkdir:
      return tree.dirs().size() < limits_.dirs ? chosen->change : Change::rmdir;
    case Change::behind_create:
    case Change::behind_link:
      if (tree.names().size() >= limits_.names) return Change::unlink;
      return limits_.changes_behind ? chosen->change : Change::create;
    case Change::behind_mkdir:
      if (tree.dirs().size() >= limits_.dirs) return Change::rmdir;
      return limits_.changes_behind ? chosen->change : Change::mkdir;
    case Change::behind_unlink:
    case Change::behind_write:
    case Change::behind_link_outside:
    case Change::audit:
      return limits_.changes_behind ? chosen->change : Change::write;
    case Change::behind_rename:
      return limits_.changes_behind ? chosen->change : Change::rename;
    case Change::behind_move_dir:
    case Change::behind_remove_dir:
      return limits_.changes_behind ? chosen->change : Change::move_dir;
    case Change::remove_behind:
      return limits_.removals_behind ? chosen->change : Change::move_dir;
    case Change::set_future:
    case Change::set_future_dir:
      return limits_.future_times ? chosen->change : Change::chmod;
    case Change::scan_again:
      return limits_.scans && below(scans_wanted_per_scan) == 0 ? chosen->change : Change::write;
    default:
      return chosen->change;
  }
}

/// One that is full if no empty one is found soon.
uint32_t AccountsChooser::empty_dir(const ModelTree& tree) {
  constexpr int tries = 8;
  uint32_t dir = any(tree.dirs());
  for (int i = 0; i < tries && !tree.is_empty(dir); ++i)
    dir = any(tree.dirs());
  return dir;
}

Operation AccountsChooser::next(const ModelTree& tree) {
  const auto name = [&] { return any(tree.names()); };
  const auto dir = [&] { return any(tree.dirs()); };
  const auto handle = [&] { return any(tree.handles()); };
  const Change chosen = change(tree);
  const auto operands = [&]() -> std::array<uint32_t, Operation::operands_max> {
    // A braced list is evaluated from left to right.
    switch (chosen) {
      case Change::create:
      case Change::create_reused:
      case Change::behind_create:
        return {tree.fresh_name(), dir(), size(), blocks()};
      case Change::link:
      case Change::behind_link:
        return {tree.fresh_name(), name(), dir()};
      case Change::rename:
      case Change::exchange_mixed:
      case Change::behind_rename:
        return {name(), dir()};
      case Change::overwrite:
      case Change::exchange:
        return {name(), name()};
      case Change::exchange_dirs:
      case Change::move_dir:
      case Change::behind_move_dir:
        return {dir(), dir()};
      case Change::overwrite_dir:
        return {dir(), empty_dir(tree)};
      case Change::mkdir:
      case Change::behind_mkdir:
        return {tree.fresh_dir(), dir()};
      case Change::rmdir:
        return {empty_dir(tree)};
      case Change::remove_behind:
      case Change::chmod_dir:
      case Change::behind_remove_dir:
        return {dir()};
      case Change::set_future_dir:
        return {dir(), below(1'000'000)};
      case Change::grow_dir:
        return {dir(), blocks()};
      case Change::write:
      case Change::behind_write:
        return {name(), size(), blocks()};
      case Change::truncate:
        return {name(), size()};
      case Change::move_blocks:
        return {name(), blocks()};
      case Change::set_future:
        return {name(), below(1'000'000)};
      case Change::open:
        return {tree.fresh_handle(), name()};
      case Change::close:
        return {handle()};
      case Change::write_open:
        return {handle(), size(), blocks()};
      case Change::open_nameless:
        return {tree.fresh_handle(), size(), blocks()};
      case Change::link_open:
        return {tree.fresh_name(), handle(), dir()};
      case Change::unlink:
      case Change::behind_unlink:
      case Change::behind_link_outside:
      case Change::chmod:
      case Change::link_outside:
      case Change::unlink_outside:
      case Change::forget:
        return {name()};
      case Change::scan_again:
      case Change::audit:
        return {};
    }
    return {};
  }();
  return {.kind = static_cast<uint8_t>(chosen), .operands = operands};
}

}  // namespace tally::test
