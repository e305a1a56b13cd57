-- From the resolved notebooks' Markdown to what pandoc's writers expect. Numbers and texts are already there.
local HTML = FORMAT:match 'html' ~= nil
local stringify = pandoc.utils.stringify

-- Tables ------------------------------------------------------------------------------------------------------------

-- pandas writes the names of columns and of the index in two header rows that do not overlap: make them one.
local function is_blank(cell) return not stringify(cell):gsub('\u{a0}', ''):match '%S' end

local function one_header_row(head)
  local upper, lower = head.rows[1], head.rows[2]
  if #head.rows ~= 2 or #upper.cells ~= #lower.cells then return end
  for i in ipairs(upper.cells) do
    if not is_blank(upper.cells[i]) and not is_blank(lower.cells[i]) then return end
  end
  for i, cell in ipairs(upper.cells) do
    if is_blank(cell) then upper.cells[i] = lower.cells[i] end
  end
  head.rows = { upper }
end

local function is_number(text)
  text = text:gsub('%s', '')
  return text == '' or text == '–' or text == 'NaN' or text:match '^[−+-]?[%d.,]+[%%eE%d.,±×+−–%[%]()-]*$'
end

local function tidy(tbl)
  one_header_row(tbl.head)
  for _, row in ipairs(tbl.head.rows) do
    for _, cell in ipairs(row.cells) do
      if cell.col_span > 1 then cell.alignment = 'AlignCenter' end
    end
  end
  for i, spec in ipairs(tbl.colspecs) do
    local numeric = true
    for _, row in ipairs(tbl.bodies[1] and tbl.bodies[1].body or {}) do
      numeric = numeric and (not row.cells[i] or is_number(stringify(row.cells[i])))
    end
    if spec[1] == 'AlignDefault' then tbl.colspecs[i] = { numeric and 'AlignRight' or 'AlignLeft', spec[2] } end
  end
  return tbl
end

local function html_output(block)                      -- the HTML of a DataFrame, marked by render.py
  if not block.classes:includes 'html-output' then return end
  return pandoc.read(block.text, 'html').blocks:walk { Div = function(div) return div.content end, Table = tidy }
end

-- Anchors: <a id="fig-x"></a> alone in a paragraph belongs to what follows ------------------------------------------

local function anchor(block)                           -- id and the rest of the paragraph
  if block.t ~= 'Para' or block.content[1].t ~= 'RawInline' then return end
  local id = block.content[1].text:match '^<a id="([^"]+)">$'
  if id then return id, pandoc.Inlines { table.unpack(block.content, 3) } end
end

local function is_caption(block)                       -- **Figure 3.** ... or **Supplementary Figure S3.** ...
  local first = block.t == 'Para' and block.content[1]
  return first and first.t == 'Strong' and stringify(first):match '^[%a ]+ S?%d+%.$'
end

local function captioned(id, content, caption)
  caption = { long = { pandoc.Plain(caption.content) } }
  if id:match '^tbl' and #content == 1 and content[1].t == 'Table' then
    content[1].identifier, content[1].caption = id, caption
    return HTML and pandoc.Div(content, { '', { 'scroll' } }) or content[1]
  end
  return pandoc.Figure(content, caption, { id })
end

local function equation(id, math)                      -- the number is written as \tag{3}
  local number
  math.text = math.text:gsub('%s*\\tag{(S?%d+)}%s*$', function(n) number = n return '' end)
  if HTML then
    return pandoc.Div({ pandoc.Para { math }, pandoc.Para('(' .. number .. ')') }, { id, { 'equation' } })
  end
  local text = pandoc.write(pandoc.Pandoc { pandoc.Para { math } }, 'typst'):gsub('%s+$', '')
  return pandoc.RawBlock('typst',
    ('#[#set math.equation(numbering: _ => "(%s)")\n%s <%s>]'):format(number, text, id))
end

local ids = {}                                         -- what links may lead to

local function attach(blocks)
  local out, i = pandoc.Blocks {}, 1
  while i <= #blocks do
    local id, rest = anchor(blocks[i])
    local following = blocks[i + 1]
    if id then ids[id] = true end
    if not id then
      out:insert(blocks[i])
    elseif #rest > 0 then                              -- an entry of the references
      local small = pandoc.RawBlock('typst', '#set text(size: 10pt)')  -- within this block; HTML has its style sheet
      out:insert(pandoc.Div({ small, pandoc.Para(rest) }, { id, { 'reference' } }))
    elseif following.t == 'Header' then
      following.identifier = id
    elseif id:match '^eq' then
      out:insert(equation(id, following.content[1]))
      i = i + 1
    elseif id:match '^fig' or id:match '^tbl' then
      local content = pandoc.Blocks {}
      i = i + 1
      while not is_caption(blocks[i]) do
        content:insert(blocks[i])
        i = i + 1
      end
      out:insert(captioned(id, content, blocks[i]))
    else
      out:insert(pandoc.Div({ following }, { id }))
      i = i + 1
    end
    i = i + 1
  end
  return out
end

-- Links: other notebooks are part of the same document --------------------------------------------------------------

local function inside(link)
  local target = link.target:gsub('^[%w_./-]+%.ipynb', '')
  if target == '' then return link.content end
  if target:sub(1, 1) == '#' and not ids[target:sub(2)] then
    if HTML then error('the link ' .. link.target .. ' leads nowhere') end
    target = 'report.html' .. target                   -- in the supplement, which only the HTML has
  end
  link.target = target
  return link
end

-- Typst -------------------------------------------------------------------------------------------------------------

local function typst_image(image)                      -- the writer drops the alternative text
  local width, alt = image.attributes.width or 'auto', stringify(image.caption)
  return pandoc.RawInline('typst', ('#image("%s", width: %s, alt: "%s")'):format(
    image.src, width, (alt:gsub('\\', '\\\\'):gsub('"', '\\"'))))
end

local function guard(cell)                             -- "+ x", "- x", "= x" at the start of a cell is Typst markup
  local first = cell.contents[1] and cell.contents[1].content and cell.contents[1].content[1]
  if first and first.t == 'Str' and first.text:match '^[-+=/]' then
    cell.contents[1].content:insert(1, pandoc.RawInline('typst', '#[]'))
  end
  return cell
end

local function bold(cell)
  cell.contents = cell.contents:walk { Plain = function(text) return pandoc.Plain(pandoc.Strong(text.content)) end }
  return cell
end

-- Columns of much text share the width of the page by how much they hold; short tables stay as narrow as they are.
local function share_width(tbl, rows)
  local amount, longest, total, widest = {}, {}, 0, 0
  for i = 1, #tbl.colspecs do
    amount[i], longest[i] = 0, 0
    for _, row in ipairs(rows) do
      local length = #pandoc.utils.stringify(row.cells[i].contents)
      amount[i], longest[i] = amount[i] + length, math.max(longest[i], length)
    end
    amount[i] = math.max(amount[i] / #rows, #pandoc.utils.stringify(tbl.head.rows[1].cells[i].contents)) ^ 0.6
    total, widest = total + amount[i], widest + longest[i]
  end
  if widest < 110 then return end
  for i, spec in ipairs(tbl.colspecs) do tbl.colspecs[i] = { spec[1], amount[i] / total } end
end

local function typst_table(tbl)
  local body = tbl.bodies[1] and tbl.bodies[1].body or {}
  if #body > 0 then share_width(tbl, body) end
  for _, row in ipairs(tbl.head.rows) do row.cells = row.cells:map(bold) end
  for _, row in ipairs(body) do row.cells = row.cells:map(guard) end
  if #body <= 25 then return tbl end
  local open = pandoc.RawBlock('typst', '#[#show figure: set block(breakable: true)')
  return { open, tbl, pandoc.RawBlock('typst', ']') }   -- only a long table may break
end

-- Marks for layout.py: what may move, and what stays with the block before it.

local function ends_a_sentence(block)
  return block.t ~= 'Header' and (block.t ~= 'Para' or stringify(block):match '[.?!”"’)]%s*$' ~= nil)
end

local function is_equation(block)
  return block.t == 'RawBlock' or block.t == 'Para' and block.content[1].t == 'Math'
end

local function goes_on(block)                          -- in the middle of a sentence
  return block.t == 'Para' and (block.content[1].t == 'Math' or stringify(block):match '^%l' ~= nil)
end

local function mark(blocks)
  local out, before = pandoc.Blocks {}, nil
  for _, block in ipairs(blocks) do
    local kind = 'text'
    if block.t == 'Figure' or block.t == 'Table' and block.identifier ~= '' then
      kind = 'float'
    elseif before and (not ends_a_sentence(before) or is_equation(block) or goes_on(block)) then
      kind = 'bound'
    end
    if kind ~= 'float' then before = block end
    out:extend { pandoc.RawBlock('typst', '//: ' .. kind), block }
  end
  return out
end

function Pandoc(doc)
  doc = doc:walk { CodeBlock = html_output }
  doc.blocks = attach(doc.blocks)
  doc:walk { Header = function(header) ids[header.identifier] = true end }
  doc = doc:walk { Link = inside }
  if HTML then return doc end
  doc.blocks = mark(doc.blocks)
  return doc:walk { Image = typst_image, Table = typst_table }
end
